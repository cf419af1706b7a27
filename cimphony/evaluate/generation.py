"""Questions answered by generation: right, wrong, malformed or cut off, and how long the outputs are.

Modes are those of chat templates with a thinking switch (Qwen3's `enable_thinking`): `direct` asks for the answer at
once, `thinking` lets the model think first. Demonstrations before the question make either one in-context.
"""

from bisect import bisect_left
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList, PreTrainedModel, StoppingCriteria, StoppingCriteriaList
from transformers.generation.logits_process import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from cimphony.chip import Chip
from cimphony.errors import DataError
from cimphony.evaluate.metrics import evaluating
from cimphony.evaluate.population import evaluate_chips
from cimphony.evaluate.progress import progress_bar
from cimphony.evaluate.tasks import Question, Task, right
from cimphony.random import Stream
from cimphony.record import Record

Mode = Literal["direct", "thinking"]
Status = Literal["right", "wrong", "malformed", "truncated"]


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn. A question's numbers depend on the seed and the question alone, whatever the batch."""

    seed: int = 0
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None


@dataclass(frozen=True)
class Answer:
    """One output."""

    status: Status
    tokens: int  # with the one that ends it
    text: str
    given: str | None  # the answer found in it


@dataclass(frozen=True)
class Answers:
    """All outputs of a task, in its order."""

    answers: tuple[Answer, ...]

    def scores(self) -> dict[str, float]:
        """Accuracy first; mean length in tokens; fractions cut off and malformed."""
        share = {kind: np.mean([one.status == kind for one in self.answers]) for kind in ("truncated", "malformed")}
        accuracy = np.mean([one.status == "right" for one in self.answers])
        length = np.mean([one.tokens for one in self.answers])
        return {"accuracy": float(accuracy), "length": float(length), **{k: float(v) for k, v in share.items()}}


def answer(
    model: PreTrainedModel,
    tokenizer: Any,
    task: Task,
    *,
    mode: Mode = "direct",
    shots: int = 0,
    sampling: Sampling | None = None,
    batch: int = 16,
    max_new_tokens: int | None = None,
    thought_end: str = "</think>",
    progress: bool = False,
) -> Answers:
    """Ask a model every question of a task.

    Args:
        model: one that generates, digital or programmed.
        mode: `direct` or `thinking`; the latter needs a chat template with the switch `enable_thinking`. Without a
            chat template prompts and demonstrations are plain text, a blank line between them.
        shots: how many of the task's demonstrations come before each question.
        sampling: None: greedy.
        batch: questions at once.
        max_new_tokens: None: the task's own.
        thought_end: what ends a thought; the answer is looked for behind the last one.

    An output that does not end within max_new_tokens is truncated, one without an answer (or, thinking, without the
    end of the thought) malformed; neither is right. Global random numbers are not used.
    Raises DataError where the template cannot do what is asked or the model has too few positions.
    """
    chosen, limit = task.with_shots(shots), max_new_tokens or task.max_new_tokens
    prompts = [encode_prompt(tokenizer, chosen, question, mode) for question in task.questions]
    _check_room(model, max(map(len, prompts)) + limit)
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    groups = [order[start : start + batch] for start in range(0, len(order), batch)]
    found: dict[int, Answer] = {}
    with evaluating(model), progress_bar(f"{task.name}, {mode}", len(groups), progress) as advance:
        for group in groups:
            drawn = _written(model, tokenizer, [prompts[index] for index in group], limit, sampling, group, task.stop)
            for index, ids in zip(group, drawn, strict=True):
                text, tokens, ended = _read(tokenizer, ids, _ends(model), task.stop)
                status, given = _judge(task, task.questions[index], text, thought_end, mode == "thinking")
                if not ended:
                    status, given = "truncated", None
                found[index] = Answer(status, tokens, text, given)
            advance()
    return Answers(tuple(found[index] for index in range(len(prompts))))


def evaluate_generation(
    model: PreTrainedModel,
    tokenizer: Any,
    task: Task,
    chip: Chip,
    *,
    mode: Mode = "direct",
    shots: int = 0,
    sampling: Sampling | None = None,
    batch: int = 16,
    max_new_tokens: int | None = None,
    **options: Any,
) -> Record:
    """`answer` on a population of chips: the record of `evaluate_chips`, of accuracy, with all scores as details.

    Args:
        options: seeds, ages, fidelities, record_path and what else `evaluate_chips` takes. Where no calibration is
            given, ranges are learnt from questions with their answers: 16 that are not asked, where there are such.
    """
    asking: dict[str, Any] = {"mode": mode, "shots": shots, "max_new_tokens": max_new_tokens or task.max_new_tokens}
    settings = {
        "data": task.name,
        **asking,
        "stop": task.stop,
        "sampling": sampling and asdict(sampling),
        "questions": len(task.questions),
    }
    if "calibration" not in options:
        options["calibration"] = calibration(tokenizer, task, mode=mode, shots=shots)
        settings["calibration"] = _shown(task)[1]

    def metric(net: Any) -> dict[str, float]:
        return answer(net, tokenizer, task, sampling=sampling, batch=batch, **asking).scores()

    options["settings"] = {**settings, **options.get("settings", {})}
    name = f"accuracy on {task.name}, {mode}" + (f", {shots}-shot" if shots else "")
    return evaluate_chips(model, metric, chip, **{"metric_name": name, **options})


def encode_prompt(tokenizer: Any, task: Task, question: Question, mode: Mode) -> list[int]:
    """Token ids of the task's demonstrations and a question, up to where the model goes on."""
    if getattr(tokenizer, "chat_template", None) is None:
        if mode == "thinking":
            raise DataError("mode thinking needs a chat template, and this tokenizer has none; use mode direct")
        parts = [f"{one.prompt} {one.worked or one.answer}\n\n" for one in task.shots]
        return list(tokenizer("".join(parts) + question.prompt)["input_ids"])
    turns = [{"role": "user", "content": question.prompt}]
    for one in reversed(task.shots):
        said = {"role": "assistant", "content": one.worked or one.answer}
        turns = [{"role": "user", "content": one.prompt}, said, *turns]
    texts = {
        switch: tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True, enable_thinking=switch)
        for switch in (False, True)
    }
    if mode == "thinking" and texts[True] == texts[False]:
        raise DataError(
            "mode thinking: this chat template has no switch enable_thinking; use mode direct, or a model that has one"
        )
    return list(tokenizer(texts[mode == "thinking"], add_special_tokens=False)["input_ids"])


def calibration(
    tokenizer: Any, task: Task, *, mode: Mode = "direct", shots: int = 0, count: int = 16
) -> list[dict[str, Tensor]]:
    """Batches to learn ranges from: questions, each with what a demonstration or the answer would say.

    The first that are not asked; where all are asked, the first.
    """
    chosen = task.with_shots(shots)
    made = []
    for question in _shown(task, count)[0]:
        said = tokenizer(f" {question.worked or question.answer}", add_special_tokens=False)["input_ids"]
        made.append({"input_ids": torch.tensor([[*encode_prompt(tokenizer, chosen, question, mode), *said]])})
    return made


def _shown(task: Task, count: int = 16) -> tuple[tuple[Question, ...], str]:
    """The questions that ranges are learnt from, and in words."""
    taken = (task.unasked or task.questions)[:count]
    said = " that are not asked" if task.unasked else ", which are asked too"
    return taken, f"the first {len(taken)} questions{said}"


class _Draw(LogitsProcessor):
    """Leaves one token to choose: the inverse of the cumulated probabilities at a number of (seed, question, step)."""

    def __init__(self, sampling: Sampling, questions: Sequence[int], prompt: int) -> None:
        self.streams = [Stream(sampling.seed, f"question {index}", "sampling") for index in questions]
        self.prompt = prompt

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores [question, word], all but the chosen one -inf."""
        step = input_ids.shape[1] - self.prompt
        uniform = [float(stream.uniform(step, 1)[0]) for stream in self.streams]
        cumulated = scores.double().softmax(dim=-1).cumsum(dim=-1)
        at = torch.tensor(uniform, dtype=torch.float64, device=scores.device)[:, None] * cumulated[:, -1:]
        chosen = torch.searchsorted(cumulated, at, right=True).clamp(max=scores.shape[-1] - 1)
        return torch.full_like(scores, -torch.inf).scatter_(1, chosen, 0.0)


class _Stop(StoppingCriteria):
    """Ends every output that holds a text."""

    def __init__(self, tokenizer: Any, stop: str, prompt: int) -> None:
        self.tokenizer, self.stop, self.prompt = tokenizer, stop, prompt

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        """Whether each question's output is at its end."""
        texts = [self.tokenizer.decode(row) for row in input_ids[:, self.prompt :].tolist()]
        return torch.tensor([self.stop in text for text in texts], device=input_ids.device)


def _read(tokenizer: Any, ids: list[int], ends: list[int], stop: str | None) -> tuple[str, int, bool]:
    """An output's text, its tokens with the one that ends it, and whether it did end."""
    end = next((at for at, token in enumerate(ids) if token in ends), None)
    text = tokenizer.decode(ids[:end], skip_special_tokens=False)
    if stop is not None and stop in text:
        tokens = bisect_left(range(len(ids)), True, key=lambda count: stop in tokenizer.decode(ids[:count]))
        return text.partition(stop)[0], tokens, True
    return text, len(ids) if end is None else end + 1, end is not None


def _written(
    model: PreTrainedModel,
    tokenizer: Any,
    prompts: list[list[int]],
    limit: int,
    sampling: Sampling | None,
    questions: Sequence[int],
    stop: str | None,
) -> list[list[int]]:
    """New token ids of each prompt, padding included."""
    width = max(map(len, prompts))
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else (_ends(model) or [0])[0]
    ids = torch.tensor([[pad] * (width - len(one)) + one for one in prompts], device=model.device)
    mask = torch.tensor([[0] * (width - len(one)) + [1] * len(one) for one in prompts], device=model.device)
    processors = LogitsProcessorList([] if sampling is None else _warpers(sampling))
    if sampling is not None:
        processors.append(_Draw(sampling, questions, width))
    config = deepcopy(model.generation_config)
    assert config is not None
    config.update(max_new_tokens=limit, max_length=None, do_sample=False, pad_token_id=pad, num_beams=1)
    config.update(temperature=1.0, top_k=50, top_p=1.0)  # a model's own would warn: they are processors here
    output: Any = model.generate(  # type: ignore[operator]
        input_ids=ids, attention_mask=mask, generation_config=config, logits_processor=processors,
        stopping_criteria=StoppingCriteriaList([] if stop is None else [_Stop(tokenizer, stop, width)]),
    )  # fmt: skip
    return output[:, width:].tolist()


def _warpers(sampling: Sampling) -> list[LogitsProcessor]:
    if not sampling.temperature > 0:
        raise DataError(f"sampling.temperature = {sampling.temperature}; choose more than 0, or sampling=None: greedy")
    found: list[Any] = [TemperatureLogitsWarper(float(sampling.temperature))]
    if sampling.top_k is not None:
        found.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p is not None:
        found.append(TopPLogitsWarper(sampling.top_p))
    return found


def _judge(task: Task, question: Question, text: str, thought_end: str, thinking: bool) -> tuple[Status, str | None]:
    _, thought, behind = text.rpartition(thought_end)
    given = None if thinking and not thought else task.answer_in(behind)
    if given is None:
        return "malformed", None
    return "right" if right(given, question.answer) else "wrong", given


def _ends(model: PreTrainedModel) -> list[int]:
    """Tokens that end an output."""
    config = getattr(model, "generation_config", None) or model.config
    found = config.eos_token_id
    return [] if found is None else [found] if isinstance(found, int) else list(found)


def _check_room(model: PreTrainedModel, needed: int) -> None:
    positions = getattr(model.config, "max_position_embeddings", None)
    if positions and needed > positions:
        raise DataError(
            f"the longest prompt and max_new_tokens take {needed} tokens, the model has {positions} positions; "
            "choose fewer shots or a smaller max_new_tokens"
        )
