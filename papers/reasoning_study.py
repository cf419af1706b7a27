"""Reasoning on noisy weights: small Llamas learn to follow permutations, answered at once or thought through.

    python papers/reasoning_study.py --work WORK_FOLDER --minutes 8     # again and again: it goes on where it stopped

A question is a start state and six operations, each a fixed permutation of eight states: `[Q] c P Q Q P P Q`. Asked
without thinking the model answers `f`; thinking, it writes down every operation and the state after it; shown
terse examples, the states alone. Two sets of models: `even` answers at once as well as by thinking; `seldom` saw few
answers without a thought in training and is near chance at them, as for a question too hard to answer at once. Other
non-idealities and single layers are measured on `even` alone. Results: papers/results/llm-reasoning-*.json, what
follows from them: docs/reasoning.md.
"""

import argparse
import random
import time
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import cimphony as cim
from cimphony.chip import Chip
from cimphony.evaluate import evaluate_chips
from cimphony.evaluate.generation import answer, calibration
from cimphony.evaluate.sensitivities import sensitivity
from cimphony.evaluate.tasks import Question, Task
from cimphony.record import Draft

ROOT = Path(__file__).resolve().parent
STATES, OPERATIONS, DEPTH = "abcdefgh", "PQ", 6
HELD_OUT, STEPS, RATE = 64, 3000, 4e-3
MODELS, CHIPS = 3, 10
SIGMAS, REDUNDANT, FRAGILE = (0.02, 0.04, 0.06, 0.08, 0.12, 0.2), 0.08, 0.1
# every placement takes as many more cells as the three layers do once: three copies of a third, two halves, or all
PLACEMENTS: dict[str, dict[str, int]] = {
    "shallow": {"model.layers.0.*": 4}, "middle": {"model.layers.1.*": 4}, "deep": {"model.layers.2.*": 4},
    "attention": {"*.self_attn.*": 3}, "mlp": {"*.mlp.*": 3}, "all": {"*": 2},
}  # fmt: skip
GROUPS = {f"layer {at}": f"model.layers.{at}.*" for at in range(3)} | {"attention": "*.self_attn.*", "mlp": "*.mlp.*"}
# how a question is asked: mode, and the style of two demonstrations before it
ASKS: dict[str, tuple[Any, str | None]] = {
    "direct": ("direct", None), "thinking": ("thinking", None), "direct, examples": ("direct", "direct"),
    "thinking, examples": ("thinking", "verbose"), "thinking, terse examples": ("thinking", "terse"),
}  # fmt: skip
PLAIN: tuple[str, ...] = ("direct", "thinking")
Asked = tuple[int, str]  # start state, operations
WORDS = ["<pad>", "<eos>", "[Q]", "[A]", "<think>", "</think>", *STATES, *OPERATIONS]
# as Qwen3's: without thinking the answer begins behind an empty thought
TEMPLATE = """{%- for m in messages -%}
{{ ('[Q] ' if m.role == 'user' else '[A] ') + m.content + (' ' if m.role == 'user' else ' <eos> ') }}
{%- endfor -%}
{%- if add_generation_prompt -%}[A]{%- if enable_thinking is defined and not enable_thinking %} <think> </think>
{%- endif -%}{%- endif -%}"""
FORMATS = ("direct", "verbose", "terse")
SHARES = {"even": ((6, 4, 0), (5, 3, 3)), "seldom": ((1, 9, 0), (1, 3, 3))}  # of FORMATS: without, with demonstrations


def tables() -> dict[str, list[int]]:
    """The permutation behind each operation; they do not commute."""
    drawn = random.Random(8)
    return {name: drawn.sample(range(len(STATES)), len(STATES)) for name in OPERATIONS}


def every_question() -> list[Asked]:
    """All questions of full depth, in a shuffled order; the first HELD_OUT are never trained on."""
    found = [(start, "".join(names)) for start in range(len(STATES)) for names in product(OPERATIONS, repeat=DEPTH)]
    random.Random(0).shuffle(found)
    return found


def drawn_question(rng: random.Random, depth: int, held_out: set[Asked]) -> Asked:
    while True:
        drawn = rng.randrange(len(STATES)), "".join(rng.choice(OPERATIONS) for _ in range(depth))
        if drawn not in held_out:
            return drawn


def asked(start: int, operations: str) -> str:
    return " ".join([STATES[start], *operations])


def answered(start: int, operations: str, style: str) -> str:
    """What the model should write, in one of the formats."""
    at, steps, table = start, [], tables()
    for name in operations:
        at = table[name][at]
        steps += [name, STATES[at]] if style == "verbose" else [STATES[at]]
    thought = [] if style == "direct" else steps
    return " ".join(["<think>", *thought, "</think>", STATES[at]])


def tokenizer() -> PreTrainedTokenizerFast:
    words = Tokenizer(models.WordLevel({word: at for at, word in enumerate(WORDS)}, unk_token="<pad>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # type: ignore[assignment]
    made = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>")
    made.chat_template = TEMPLATE
    return made


def new_model(seed: int) -> LlamaForCausalLM:
    """Three layers whose attention has as many weights as its MLP, so that equal extra cells are whole copies."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(WORDS), hidden_size=48, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=4, head_dim=12, max_position_embeddings=128, tie_word_embeddings=False,
        pad_token_id=0, eos_token_id=1, bos_token_id=None, initializer_range=0.05,
    )  # fmt: skip
    return LlamaForCausalLM(config)


def conversation(rng: random.Random, style: str, shots: int, held_out: set[Asked]) -> tuple[list[int], list[bool]]:
    """Token ids, and which of them the assistant says."""
    depths = [rng.randint(1, 3) for _ in range(shots)] + [rng.choice((1, 2, 3, 4, 5, *[DEPTH] * 5))]
    ids: list[int] = []
    said: list[bool] = []
    for depth in depths:
        drawn = drawn_question(rng, depth, held_out)
        says = [*answered(*drawn, style).split(), "<eos>"]
        given = 2 if style == "direct" else 0  # the empty thought is part of the question
        asks = ["[Q]", *asked(*drawn).split(), "[A]", *says[:given]]
        ids += [WORDS.index(word) for word in asks + says[given:]]
        said += [False] * len(asks) + [True] * (len(says) - given)
    return ids, said


def batch(kind: str, rng: random.Random, step: int, held_out: set[Asked], size: int = 72) -> tuple[Tensor, Tensor]:
    """Conversations [row, token], and which tokens count; every fourth batch has demonstrations."""
    shots = rng.choice((1, 2)) if step % 4 == 3 else 0
    styles = rng.choices(FORMATS, SHARES[kind][shots > 0], k=size >> shots)
    drawn = [conversation(rng, style, shots, held_out) for style in styles]
    width = max(len(ids) for ids, _ in drawn)
    rows = torch.tensor([ids + [0] * (width - len(ids)) for ids, _ in drawn])
    return rows, torch.tensor([said + [False] * (width - len(said)) for _, said in drawn])


def loss_of(net: Any, ids: Tensor, said: Tensor) -> Tensor:
    """Cross-entropy of what the assistant says; every conversation counts the same, however long."""
    logits = net(input_ids=ids[:, :-1]).logits
    losses = F.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none") * said[:, 1:]
    return (losses.sum(1) / said.sum(1)).mean()


def train(kind: str, seed: int, steps: int, folder: Path) -> None:
    """A model trained from scratch, with its tokenizer, in a folder as Hugging Face writes it."""
    net, rng, began = new_model(seed), random.Random(seed), time.perf_counter()
    held_out = set(every_question()[:HELD_OUT])
    optimiser = torch.optim.AdamW(net.parameters(), lr=RATE, weight_decay=0.01, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps, pct_start=0.1)
    for step in range(steps):
        loss = loss_of(net, *batch(kind, rng, step, held_out))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        schedule.step()
        if step % 500 == 499:
            print(
                f"{kind} {seed}, step {step + 1}: loss {loss.item():.4f}, {time.perf_counter() - began:.0f} s",
                flush=True,
            )
    net.eval().save_pretrained(folder)
    tokenizer().save_pretrained(folder)


# what is asked


def questions(style: str | None) -> Task:
    """The held-out questions, behind two demonstrations of three operations where a style is given."""
    rng, shown = random.Random(1), []
    for _ in range(2 if style else 0):
        drawn = drawn_question(rng, 3, set())
        shown.append(Question(asked(*drawn), "", answered(*drawn, str(style))))
    held_out = every_question()[:HELD_OUT]
    found = [Question(asked(*one), answered(*one, "direct").split()[-1], answered(*one, "verbose")) for one in held_out]
    return Task("permutations", tuple(found), tuple(shown), r"^\s*([a-h])\s*$", 48)


def scores(net: Any, words: Any, asks: tuple[str, ...]) -> dict[str, float]:
    """All scores of every way to ask."""
    found: dict[str, float] = {}
    for name in asks:
        mode, style = ASKS[name]
        task = questions(style)
        told = answer(net, words, task, mode=mode, shots=len(task.shots), batch=HELD_OUT).scores()
        found |= {f"{name}: {score}": value for score, value in told.items()}
    return found


def accuracy(net: Any, words: Any, ask: str) -> float:
    return scores(net, words, (ask,))[f"{ask}: accuracy"]


# where: chips


def noisy(sigma: float, **changes: Any) -> Chip:
    """Weights with an error of sigma times the largest of their tensor, written once: two cells a weight."""
    device = {"kind": "gaussian", "additive": sigma / 2**0.5} | changes.pop("device", {})
    return cim.load_chip("hybrid-rram-sram").replace({"units.rram.cell.device": device, **changes})


def other_noise() -> dict[str, tuple[Chip, float]]:
    """One non-ideality after the other, and the age of the chip [s]."""
    pcm, year = cim.load_chip("pcm-256").replace({"units.analog.fidelity": "effective"}), 365 * 86400.0
    found = {f"pcm-256, {name}": (pcm.only(name), 0.0) for name in ("programming", "read")}
    found["pcm-256, drift of a year"] = pcm.only("drift"), year
    found["pcm-256, converters"] = cim.load_chip("pcm-256").only("converters"), 0.0
    found["pcm-256, all, fresh"], found["pcm-256, all, a year"] = (pcm, 0.0), (pcm, year)
    for share in (0.001, 0.003, 0.01):
        device = {"additive": 0.0, "stuck": {"off": share / 2, "on": share / 2}}
        found[f"stuck cells, {share}"] = noisy(0.0, device=device), 0.0
    return found | {f"read noise, {sigma}": (read_noise(sigma), 0.0) for sigma in (0.08, 0.12)}


def read_noise(sigma: float) -> Chip:
    return noisy(0.0, device={"additive": 0.0, "read": sigma / 2**0.5})


# the study


class Study:
    """One set of models; what is finished is kept in its record."""

    def __init__(self, kind: str, work: Path, out: Path, minutes: float) -> None:
        self.kind, self.work, path = kind, work, out / f"llm-reasoning-{kind}.json"
        self.began, self.end = time.perf_counter(), time.perf_counter() + 60 * minutes
        settings: dict[str, Any] = {
            "models": MODELS, "chips": CHIPS, "steps": STEPS, "rate": RATE, "questions": HELD_OUT, "depth": DEPTH,
            "shares of formats without and with demonstrations": SHARES[kind], "formats": FORMATS,
            "placements": PLACEMENTS, "sigma": "of the largest weight of a tensor", "digital": ["lm_head"],
            "decoding": "greedy", "max_new_tokens": questions(None).max_new_tokens,
        }  # fmt: skip
        self.draft = Draft(
            "study", f"Reasoning on noisy weights, models of set {kind}", path,
            settings=settings, results={"cases": {}, "sensitivity": {}},
            assumptions=[
                "models of three layers, trained here on one synthetic task; nothing in them is a large language model",
                "terse demonstrations shorten outputs because such pairs were trained",
                "a case's chips share their draws of noise with those of every other case of its chip and model",
            ],
        )  # fmt: skip

    def once(self, table: str, model: int, name: str, measure: Callable[[], Any]) -> None:
        """Measure what the record lacks, and write it down."""
        held = self.draft.results[table].setdefault(str(model), {})
        if name in held:
            return
        if time.perf_counter() > self.end:
            raise SystemExit("time is up; the record keeps what is finished")
        held[name] = measure()
        self.draft.save()
        print(f"{self.kind} {model}, {name}: {time.perf_counter() - self.began:.0f} s", flush=True)

    def net(self, model: int) -> Any:
        folder = self.work / f"{self.kind}{model}"
        if not (folder / "model.safetensors").is_file():
            train(self.kind, model, STEPS, folder)
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def case(self, net: Any, asks: tuple[str, ...], chip: Chip, age: float = 0.0) -> dict[str, Any]:
        """Every score by chip."""
        words, task = tokenizer(), questions(None)
        record = evaluate_chips(
            net, partial(scores, words=words, asks=asks), chip, seeds=range(CHIPS), ages=[age], exclude=["lm_head"],
            calibration=calibration(words, task, mode="thinking"), progress=False, metric_name="scores",
        )  # fmt: skip
        rows = [point["details"] for point in record.results["points"]]
        return {name: [row[name] for row in rows] for name in rows[0]}

    def rank(self, net: Any, ask: str) -> Any:
        record = sensitivity(
            net, partial(accuracy, words=tokenizer(), ask=ask), noisy(FRAGILE), seeds=range(CHIPS), groups=GROUPS,
            exclude=["lm_head"], metric_name=f"accuracy, {ask}", progress=False,
        )  # fmt: skip
        return {key: record.results[key] for key in ("clean", "noisy", "rows")}

    def run(self) -> None:
        nets = [self.net(model) for model in range(MODELS)]
        seldom = self.kind == "seldom"
        every = (*PLAIN, "thinking, terse examples") if seldom else tuple(ASKS)
        for model, net in enumerate(nets):
            self.once("cases", model, "digital", lambda net=net: scores(net, tokenizer(), every))
        noises = {f"sigma {sigma}": (every, noisy(sigma), 0.0) for sigma in SIGMAS}
        copies = {
            f"sigma {REDUNDANT}, {name}": (PLAIN[seldom:], noisy(REDUNDANT, redundancy=placed), 0.0)
            for name, placed in PLACEMENTS.items()
        }
        others = {name: (PLAIN, chip, age) for name, (chip, age) in other_noise().items()}
        self.measure(nets, noises | copies)
        if not seldom:
            for ask in PLAIN:
                for model, net in enumerate(nets):
                    self.once("sensitivity", model, ask, lambda n=net, a=ask: self.rank(n, a))
            self.measure(nets, others)
        self.draft.save(complete=True)

    def measure(self, nets: list[Any], cases: dict[str, tuple[tuple[str, ...], Chip, float]]) -> None:
        for name, (asks, chip, age) in cases.items():
            for model, net in enumerate(nets):
                self.once("cases", model, name, lambda n=net, a=asks, c=chip, t=age: self.case(n, a, c, t))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for the trained models")
    parser.add_argument("--kinds", nargs="+", default=list(SHARES), choices=list(SHARES))
    parser.add_argument("--out", type=Path, default=ROOT / "results")
    parser.add_argument("--minutes", type=float, default=60.0, help="stop before the next case after so long")
    given = parser.parse_args()
    torch.set_num_threads(1)
    for one in given.kinds:
        Study(one, given.work, given.out, given.minutes).run()
