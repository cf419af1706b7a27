"""HyFlexPIM's accuracy claims on real data: SLC rate, selection rule, noise, fidelity (Figs 11 to 13).

The encoder and the data are the user's, by path or hub name. Fine-tuned models are kept in a work folder, so that a
run that was stopped goes on; every measured point is in the record as soon as it is there.
"""

import copy
import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from cimphony.chip import Chip, load_chip
from cimphony.errors import DataError
from cimphony.evaluate.glue import TASKS, Examples, batches, load_glue, score
from cimphony.methods.gradient_redistribution import (
    GradientRedistribution,
    Selection,
    assign_,
    decompose_,
    fuse_,
    gradient_share,
)
from cimphony.nn import age_, convert_, program_
from cimphony.nn.low_rank import FusedLowRank
from cimphony.record import Record, new_record, read_record, write_record

# the three readings of the device noise; every result names its own
NOISE: dict[str, dict[str, Any]] = {
    "released": {  # per-slice multiplicative 0.025 on signed digits, quiet SLC, no converter
        "units.analog.encoding.weights": "signed_digits",
        "units.analog.adc": None,
        "units.analog.cell.device": {"slc": {"kind": "ideal"}, "mlc": {"kind": "gaussian", "multiplicative": 0.025}},
    },
    "ber-4.04": {  # additive in cell levels: 4.04 % symbol errors of a 2-bit cell, quiet SLC
        "units.analog.cell.device": {"slc": {"kind": "ideal"}, "mlc": {"kind": "gaussian", "additive": 0.259 / 3}},
    },
    "wan": {"units.analog.cell.device": {"kind": "rram", "g_min": 0.25e-6}},  # measured, SLC and MLC alike, after a day
}
DAY = 86_400.0
_RANKED: tuple[Selection, ...] = ("gradient", "singular_value", "magnitude")
_WAYS: dict[str, tuple[Selection, ...]] = {"dense": ("magnitude",), "svd": _RANKED, "svd, fine-tuned": _RANKED}
_STATISTICS = 40  # batches that gradient statistics without fine-tuning are taken over
_DIGITAL = ("classifier", "*pooler*")  # the head stays digital, as in the released simulation
RATES = (0.0, 0.05, 0.1, 0.3, 0.5, 1.0)


@dataclass
class Study:
    """One encoder on one GLUE task.

    Args:
        model: folder or hub name of an encoder.
        data: folder with `TASK/train.tsv` and `TASK/dev.tsv`.
        work: folder for fine-tuned weights and the record.
        train: use only this many training examples; None: all.
    """

    model: str
    data: str
    task: str
    work: Path
    epochs: int = 3
    lr: float = 1e-4
    redistribution_epochs: int = 1
    train: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        from transformers import AutoTokenizer

        if self.task not in TASKS:
            raise DataError(f"task {self.task!r} is not known; choose one of {', '.join(TASKS)}")
        self.tokenizer = AutoTokenizer.from_pretrained(self.model)
        self.dev = batches(load_glue(self.data, self.task, "dev"), self.tokenizer, 32)

    def fresh(self) -> nn.Module:
        """The encoder with a new head, its embeddings frozen; the head's weights come from the seed."""
        from transformers import AutoModelForSequenceClassification

        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            model = AutoModelForSequenceClassification.from_pretrained(
                self.model, num_labels=TASKS[self.task].labels, dtype=torch.float32
            )
        for name, parameter in model.named_parameters():
            parameter.requires_grad_("embeddings" not in name)
        return model

    def loader(self, epoch: int) -> list[dict[str, Tensor]]:
        """Training batches of 32, of like length, in an order that seed and epoch decide."""
        examples: Examples = load_glue(self.data, self.task, "train").head(self.train)
        made = batches(examples, self.tokenizer, 32)
        order = torch.randperm(len(made), generator=torch.Generator().manual_seed(1000 * self.seed + epoch)).tolist()
        return [{**made[index][0], "labels": made[index][1]} for index in order]

    def dense(self) -> nn.Module:
        """Fine-tuned without SVD; kept in the work folder."""
        path = self.work / f"{self.task}-dense-{self.seed}.safetensors"
        model = self.fresh()
        if path.exists():
            model.load_state_dict(load_file(path))
        else:
            self._tune(model, self.epochs, self.lr, 0)
            _keep(model, path)
        return model.eval()

    def _tune(self, model: nn.Module, epochs: int, lr: float, first: int) -> None:
        optimiser = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=lr, weight_decay=0.01)
        model.train()
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)  # dropout
            for epoch in range(epochs):
                for batch in self.loader(first + epoch):
                    optimiser.zero_grad()
                    model(**batch).loss.backward()
                    optimiser.step()

    def redistributed(self, *, tuned: bool) -> nn.Module:
        """SVD with hard threshold, then gradient statistics, with (`tuned`) or without fine-tuning on the way."""
        path = self.work / f"{self.task}-svd-{'tuned' if tuned else 'plain'}-{self.seed}.safetensors"
        model = decompose_(self.dense(), exclude=_DIGITAL)
        if path.exists():
            model.load_state_dict(load_file(path))
            return model.eval()
        method = GradientRedistribution(self.redistribution_epochs, lr=self.lr / 5 if tuned else 1e-30)
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            method.fit(model, self.loader(100)[: None if tuned else _STATISTICS], progress=False)
        _keep(model, path)
        return model.eval()

    def chip(self, noise: str, fidelity: str) -> Chip:
        """HyFlexPIM under one reading of the noise."""
        return load_chip("hyflexpim").replace({**NOISE[noise], "units.analog.fidelity": fidelity})

    def models(self) -> dict[str, nn.Module]:
        """Digital models by what was done to them, ready for a chip."""
        return {
            "dense": self.dense(),
            "svd": fuse_(self.redistributed(tuned=False)),
            "svd, fine-tuned": fuse_(self.redistributed(tuned=True)),
        }

    def gradient_shares(self) -> dict[str, dict[str, list[float]]]:
        """Share of |dL/dsigma| in the top 5 and 10 % of ranks, by layer (Fig. 11)."""
        return {
            name: {f"{top:.0%}": [gradient_share(layer, top) for layer in _low_rank(model)] for top in (0.05, 0.1)}
            for name, model in self.models().items()
            if name != "dense"
        }


@dataclass(frozen=True)
class Plan:
    """How much to measure."""

    rates: tuple[float, ...] = RATES
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    batches: int | None = None  # of the dev set; None: all

    def dev(self, data: list[Any]) -> list[Any]:
        """Every n-th batch, so that all lengths are there."""
        return data if self.batches is None else data[:: max(1, len(data) // self.batches)][: self.batches]


def run(
    study: Study,
    record_path: Path,
    *,
    noises: tuple[str, ...] = tuple(NOISE),
    fidelities: tuple[str, ...] = ("effective",),
    plan: Plan | None = None,
) -> Record:
    """Measure a study; the record at `record_path` grows point by point and is gone on with where it exists."""
    plan = plan or Plan()
    started, models = time.monotonic(), study.models()
    record = read_record(record_path) if record_path.exists() else _begin(study, models, plan)
    results = copy.deepcopy(record.results)
    done = {_key(point) for point in results["points"]}
    for noise in noises:
        for fidelity in fidelities:
            for point in _points(study, models, noise, fidelity, plan, done):
                results["points"].append(point)
                spent = record.duration + time.monotonic() - started
                write_record(
                    record.model_copy(update={"results": results, "duration": spent, "complete": False}), record_path
                )
    spent = record.duration + time.monotonic() - started
    final = record.model_copy(update={"results": results, "duration": spent, "complete": True})
    write_record(final, record_path)
    return final


def _begin(study: Study, models: dict[str, nn.Module], plan: Plan) -> Record:
    dev = plan.dev(study.dev)
    results = {
        "metric": TASKS[study.task].metric,
        "digital": {name: score(model, study.task, dev) for name, model in models.items()},
        "gradient_shares": study.gradient_shares(),
        "examples": sum(len(labels) for _, labels in dev),
        "points": [],
    }
    names = ("task", "epochs", "lr", "redistribution_epochs", "train", "seed")
    settings = {name: getattr(study, name) for name in names} | {"model": Path(study.model).name, "noise": NOISE}
    return new_record("study", f"HyFlexPIM accuracy: {study.task}", settings=settings, results=results)


def _points(
    study: Study, models: dict[str, nn.Module], noise: str, fidelity: str, plan: Plan, done: set[tuple[Any, ...]]
) -> Iterator[dict[str, Any]]:
    """Scores over selections, SLC rates and chip seeds, but for those that are done."""
    for name, digital in models.items():
        model = convert_(copy.deepcopy(digital), study.chip(noise, fidelity), exclude=_DIGITAL)
        for way, rate, seed in itertools.product(_WAYS[name], plan.rates, plan.seeds):
            point = {"model": name, "way": way, "noise": noise, "fidelity": fidelity, "slc_rate": rate, "seed": seed}
            if _key(point) in done or (rate == 1 and noise != "wan" and seed != plan.seeds[0]):
                continue  # quiet SLC cells: every chip is alike
            program_(assign_(model, rate, by=way), seed=seed)
            if noise == "wan":
                age_(model, seconds=DAY)
            yield {**point, "value": score(model, study.task, plan.dev(study.dev))}


def _key(point: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(point[name] for name in ("model", "way", "noise", "fidelity", "slc_rate", "seed"))


def _low_rank(model: nn.Module) -> list[FusedLowRank]:
    return [module for module in model.modules() if isinstance(module, FusedLowRank)]


def _keep(model: nn.Module, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".part")
    save_file({name: value.detach().contiguous().clone() for name, value in model.state_dict().items()}, temporary)
    temporary.replace(path)
