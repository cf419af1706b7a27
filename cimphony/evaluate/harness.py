"""Any task of EleutherAI's lm-evaluation-harness on simulated chips. Optional: pip install 'cimphony[lm-eval]'."""

import io
import logging
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from importlib import import_module, metadata
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor
from transformers import PreTrainedModel

from cimphony.chip import Chip
from cimphony.errors import DataError
from cimphony.evaluate.generation import Mode
from cimphony.evaluate.population import evaluate_chips
from cimphony.record import Record

_SEED = 1234  # the harness's own default


def harness_tasks(spec: str | Path) -> dict[str, Any]:
    """Tasks or groups of the harness by name, loaded.

    Args:
        spec: the name of a task, group or tag that the harness knows; or a YAML file or a folder of them, each with a
            task of your own.

    Raises DataError without the harness, for a name it does not know, and where a task's data cannot be reached.
    """
    manager_class = _harness("lm_eval.tasks").TaskManager
    path = Path(spec)
    try:
        with _alone():
            if not path.exists():
                found: Any = manager_class().load(str(spec))
                return {str(spec): found["groups"].get(str(spec)) or list(found["tasks"].values())}
            folder = path if path.is_dir() else path.parent
            manager = manager_class(include_path=str(folder.resolve()), include_defaults=False)
            specs = manager.all_tasks if path.is_dir() else [str(path.resolve())]
            return {name: [task] for one in specs for name, task in manager.load(one)["tasks"].items()}
    except (KeyError, ValueError, OSError, TypeError, yaml.YAMLError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(
            f"task {str(spec)!r} cannot be loaded by lm-eval: {reason}; give a name from `lm-eval ls tasks`, a YAML "
            "file or a folder of them; a task's data must be on disk, or be fetched once with a network"
        ) from None


def evaluate_harness(
    model: PreTrainedModel,
    tokenizer: Any,
    task: str,
    chip: Chip,
    *,
    loaded: Any = None,
    shots: int | None = None,
    limit: int | None = None,
    mode: Mode | None = None,
    batch: int = 8,
    **options: Any,
) -> Record:
    """A task's score on a population of chips: the record of `evaluate_chips`, every metric of the task as details.

    Args:
        task: its name; `loaded`: what `harness_tasks` found under it (None: looked up).
        shots: demonstrations; None: the task's own number.
        limit: only so many examples of each task.
        mode: None: plain text; `direct` or `thinking`: through the model's chat template with that switch.
        options: seeds, ages, fidelities, record_path and what else `evaluate_chips` takes. Where no calibration is
            given, ranges are learnt from 16 examples with their answers: of the task's training split, or else behind
            `limit`, or else the first.

    The value is the task's first metric, averaged where a name stands for several tasks. The harness's random numbers
    are the same for every chip, and global ones come back as they were. Raises DataError where the tokenizer has
    neither a token that begins a text nor one that ends it.
    """
    if tokenizer.bos_token_id is None and tokenizer.eos_token_id is None:
        raise DataError(
            "tasks of lm-eval need a tokenizer with a token that begins or ends a text, and this model's has neither; "
            "give a .jsonl file of prompts and answers"
        )
    evaluator, version = _harness("lm_eval.evaluator"), metadata.version("lm_eval")
    wrap = _harness("lm_eval.models.huggingface").HFLM
    manager = _harness("lm_eval.tasks").TaskManager(include_defaults=False)
    objects = loaded or harness_tasks(task)[task]
    leaves = objects if isinstance(objects, list) else objects.get_all_tasks()
    main = next(iter(leaves[0].aggregation()))
    chat = {} if mode is None else {"enable_thinking": mode == "thinking", "think_end_token": "</think>"}
    with _alone():
        wrapped = wrap(pretrained=model, tokenizer=tokenizer, batch_size=batch, **chat)

    for one in leaves:  # as the harness itself does; a task fixed at 0 stays so
        if one.get_config("num_fewshot") != 0 or shots is None:
            one.set_config(key="num_fewshot", value=one.get_config("num_fewshot") or 0 if shots is None else shots)
        one.set_fewshot_seed(seed=_SEED)
    with _alone():
        asked = manager.load(objects if isinstance(objects, list) else [objects])

    def metric(_: Any) -> dict[str, float]:
        with _alone():
            found: Any = evaluator.evaluate(
                wrapped, asked, limit=limit, apply_chat_template=mode is not None, bootstrap_iters=0, log_samples=False,
                fewshot_as_multiturn=mode is not None,
            )  # fmt: skip
        return _scores(found["results"], task, main)

    settings = {"data": task, "harness": version, "shots": shots, "limit": limit, "mode": mode}
    if "calibration" not in options:
        options["calibration"], settings["calibration"] = _calibration(tokenizer, leaves[0], limit)
    options["settings"] = {**settings, **options.get("settings", {})}
    return evaluate_chips(model, metric, chip, **{"metric_name": f"{main} on {task}", **options})


def _scores(results: Mapping[str, Mapping[str, Any]], name: str, main: str) -> dict[str, float]:
    """The first metric, then all: `task metric`, with the filter where there is one."""
    found = {
        f"{task} {key.removesuffix(',none')}": float(value)
        for task, row in results.items()
        for key, value in row.items()
        if "," in key and "_stderr," not in key and isinstance(value, int | float | np.number)
    }
    own = [one for one in found if one.startswith(f"{name} {main}")] or [one for one in found if f" {main}" in one]
    if not own:
        raise DataError(f"lm-eval task {name!r} gives no number for its metric {main}; it gives {', '.join(found)}")
    first = own[0].split(" ", 1)[1]
    values = [found[one] for one in own if one.endswith(f" {first}")]
    return {first: sum(values) / len(values), **found}


def _calibration(tokenizer: Any, task: Any, limit: int | None, count: int = 16) -> tuple[list[dict[str, Tensor]], str]:
    """Examples of a task with their answers to learn ranges from, and in words which."""
    texts = []
    for doc in (found := _shown(task, limit, count))[0]:
        target = task.doc_to_target(doc)
        choices = task.doc_to_choice(doc) if task.config.doc_to_choice is not None else None
        said = choices[target] if choices and isinstance(target, int) else target
        texts.append(f"{task.doc_to_text(doc)} {said}")
    ids = [tokenizer(text, truncation=True, max_length=512)["input_ids"] for text in texts]
    return [{"input_ids": torch.tensor([one])} for one in ids if one], found[1]


def _shown(task: Any, limit: int | None, count: int) -> tuple[list[Any], str]:
    """The examples, those that are not measured where there are such."""
    if task.has_training_docs() and (own := [*islice(task.training_docs(), count)]):
        return own, f"the first {len(own)} examples of the training split"
    if limit is not None and (behind := [*islice(task.eval_docs, limit, limit + count)]):
        return behind, f"the first {len(behind)} examples behind those that are measured"
    first = [*islice(task.eval_docs, count)]
    return first, f"the first {len(first)} examples, which are measured too"


def _harness(module: str) -> Any:
    try:
        with _alone():
            return import_module(module)
    except ImportError as error:
        raise DataError(
            f"tasks of lm-eval need an extra package ({error}): pip install 'cimphony[lm-eval]'; or give a .jsonl file "
            "of prompts and answers"
        ) from None


@contextmanager
def _alone() -> Iterator[None]:
    """Without the harness's bars and remarks; its draws from the global generators are seeded, and undone."""
    logger = logging.getLogger("lm_eval")
    before = logger.level, random.getstate(), np.random.get_state(), torch.random.get_rng_state()
    logger.setLevel(logging.ERROR)
    random.seed(_SEED)
    np.random.seed(_SEED)
    torch.random.set_rng_state(torch.Generator().manual_seed(_SEED).get_state())
    try:
        with redirect_stderr(io.StringIO()):
            yield
    finally:
        logger.setLevel(before[0])
        random.setstate(before[1])
        np.random.set_state(before[2])
        torch.random.set_rng_state(before[3])
