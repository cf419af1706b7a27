"""One point of a study, measured. What a worker keeps between points: the model, its digital value, its conversion."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import nn

from cimphony.chip import Chip, CrossbarUnit
from cimphony.cost import CostReport, estimate
from cimphony.errors import CimphonyError, DataError
from cimphony.evaluate import calibration_windows, describe, enough, load_model, load_text, perplexity
from cimphony.evaluate.glue import batches, load_glue, score
from cimphony.evaluate.population import calibrate_on
from cimphony.methods.gradient_redistribution import assign_, decompose_, fuse_
from cimphony.nn import age_, convert_, is_converted, program_, restore_
from cimphony.nn.attention import has_numbers
from cimphony.nn.trace import trace
from cimphony.record import Record
from cimphony.sweep.apply import Point, reference
from cimphony.sweep.store import failed, point_record
from cimphony.sweep.study import COST_MEASURES, Axes, Data, Study
from cimphony.workload import Workload

Metric = Callable[[nn.Module], float]
_WORKLOADS = 64  # kept traces: a study over sizes of requests stays bounded
_CALIBRATION_EXAMPLES = 64


class SetupError(DataError):
    """What every point needs cannot be had: no point can be measured."""


@dataclass
class _Loaded:
    """A model with what it is measured on. One at a time is kept."""

    key: str
    model: nn.Module
    metrics: dict[str, Metric]
    calibration: list[Any]
    learnt: str  # what ranges are learnt from, in words
    digital: dict[str, float] = field(default_factory=dict)
    converted: str | None = None  # the key of the conversion it is in


class Bench:
    """Measures points of one study. The same point gives the same numbers on any bench, in any order."""

    def __init__(self, study: Study, functions: Mapping[str, Metric] | None = None) -> None:
        self.study, self.functions = study, dict(functions or {})
        self._loaded: _Loaded | None = None
        self._workloads: dict[str, Workload] = {}

    def point(self, axes: Axes) -> "Record | SetupError":
        """The record of a point, done or failed with its message; or the error for which no point can be measured."""
        began, chip = perf_counter(), None
        try:
            point = Point(self.study, axes)
            chip = point.chip
            with one_thread():
                record = self._measured(point)
        except SetupError as error:
            return error
        except Exception as error:  # whatever it is, the other points are unharmed
            self._forget_conversion()
            said = str(error) if isinstance(error, CimphonyError) else f"{type(error).__name__}: {error}"
            record = failed(self.study, axes, said, chip and chip.model_dump(mode="json"))
        return record.model_copy(update={"duration": perf_counter() - began})

    def _measured(self, point: Point) -> Record:
        found: dict[str, Any] = {"measures": {}}
        assumptions = list[str]()
        if any(name in COST_MEASURES for name in self.study.measures):
            work = self._workload(point)
            report = estimate(work, point.chip)
            found["measures"] |= _costs(report, {"costed": _costed(work, point.chip)}, self.study)
            found["breakdown"] = {
                part["component"]: part["energy"] for part in report.by("component") if part["energy"]
            }
            assumptions += report.assumptions
        if self.study.numbers:
            numbers = self._numbers(point)
            found["measures"] |= numbers.pop("measures")
            found |= numbers
            if numbers["per_seed"]:
                assumptions.append(f"ranges of inputs and converters were learnt from {self._load(point).learnt}")
        record = point_record(self.study, point.axes, point.chip.model_dump(mode="json"), found)
        return record.model_copy(update={"assumptions": assumptions})

    # cost

    def _workload(self, point: Point) -> Workload:
        work, rank = point.work, point.method and point.method.rank
        name = work.model or point.model
        decomposed = rank is not None and work.model is None
        key = f"{name} {rank} {work}"
        if key not in self._workloads:
            if len(self._workloads) >= _WORKLOADS:
                del self._workloads[next(iter(self._workloads))]
            with self._setting_up(point, "model", "workload.", "method."):
                subject = self._load(point).model if decomposed else name
                self._workloads[key] = trace(subject, **work.model_dump(exclude={"model"}), name=Path(name).name)
        return self._workloads[key]

    # numbers

    def _numbers(self, point: Point) -> dict[str, Any]:
        """Means over chips, their spread, and every chip's own values."""
        with self._setting_up(point, "model", "method."):
            loaded = self._load(point)
        chip = point.chip
        if not isinstance(chip.unit_for("static_matmul"), CrossbarUnit) and not has_numbers(chip):
            said = {"per_seed": [], "message": f"{chip.name} computes digitally: the model's own values"}
            return self._summed(loaded, {name: [value] for name, value in loaded.digital.items()}) | said
        self._convert(loaded, point)
        rows: list[dict[str, float]] = []
        for seed in self._seeds(point, rows):
            program_(loaded.model, seed=seed)
            if point.age:
                age_(loaded.model, seconds=point.age)
            rows.append({"seed": seed} | {name: float(metric(loaded.model)) for name, metric in loaded.metrics.items()})
        found = {name: [row[name] for row in rows] for name in loaded.metrics}
        return self._summed(loaded, found) | {"per_seed": rows}

    def _seeds(self, point: Point, rows: list[dict[str, float]]) -> Iterator[int]:
        """Seeds of a point; with sequential stopping until the first measure is known well enough."""
        asked = self.study.population
        if "seed" in point.values:
            yield int(point.values["seed"] or 0)
            return
        name = reference(self.study)
        for seed in range(asked.most or asked.seeds):
            known = [row[name] for row in rows]
            if seed >= asked.seeds and enough(known, asked.precision or 0.0, asked.confidence):
                return
            yield seed

    def _summed(self, loaded: _Loaded, found: dict[str, list[float]]) -> dict[str, Any]:
        asked, study = self.study.population, self.study
        spread = {
            name: describe(
                chips, better=study.measures[name], digital=loaded.digital[name],
                within=asked.within, confidence=asked.confidence,
            )
            for name, chips in found.items()
        }  # fmt: skip
        measures = {name: one["mean"] for name, one in spread.items()}
        if "yield" in study.measures:
            measures["yield"] = spread[reference(study)]["yield"]
        return {"measures": measures, "spread": spread, "digital": dict(loaded.digital)}

    def _convert(self, loaded: _Loaded, point: Point) -> None:
        key, method = point.shares[1], point.method
        if loaded.converted == key:
            return
        self._forget_conversion()
        convert_(loaded.model, point.chip, exclude=self.study.exclude)
        if method is not None and method.slc_rate is not None:
            assign_(loaded.model, method.slc_rate, method.by)
        calibrate_on(loaded.model, loaded.calibration)
        loaded.converted = key

    def _forget_conversion(self) -> None:
        if self._loaded is not None and is_converted(self._loaded.model):
            restore_(self._loaded.model)
            self._loaded.converted = None

    # the model

    def _load(self, point: Point) -> _Loaded:
        key = point.shares[0]
        if self._loaded is None or self._loaded.key != key:
            self._loaded = None  # the old model goes before the new one comes
            model, tokenizer = load_model(point.model)
            metrics, calibration, said = _measured_on(self.study.data, model, tokenizer, self.study.numbers)
            wanted = [name for name in self.study.numbers if name != "yield"]
            metrics = {name: (self.functions | metrics)[name] for name in wanted}
            loaded = _Loaded(key, model, metrics, calibration, said)
            loaded.digital = {name: float(metric(model)) for name, metric in metrics.items()}
            if point.method is not None and point.method.rank is not None:
                fuse_(decompose_(model, point.method.rank, exclude=["lm_head"]))
            self._loaded = loaded
        return self._loaded

    @contextmanager
    def _setting_up(self, point: Point, *own: str) -> Iterator[None]:
        """Errors here are every point's, unless an axis varies what is set up."""
        try:
            yield
        except CimphonyError as error:
            if any(name.startswith(own) for name in point.values):
                raise
            raise SetupError(str(error)) from None


def _measured_on(data: Data, model: Any, tokenizer: Any, wanted: list[str]) -> tuple[dict[str, Metric], list[Any], str]:
    """The metrics of the data, and what ranges are learnt from, also in words."""
    if data.task is not None:
        return _on_task(data, model, tokenizer)
    if "accuracy" in wanted:
        raise DataError("accuracy is of a GLUE task: give data: {task: SST-2, folder: ...}; on a text, perplexity")
    if "perplexity" in wanted and not model.can_generate():
        raise DataError(f"perplexity is of models that generate text; the study's is a {type(model).__name__}")
    assert data.text is not None
    tokens = load_text(data.text, tokenizer)
    window = min(data.window or 256, getattr(model.config, "max_position_embeddings", None) or 256, len(tokens))
    metric = partial(perplexity, tokens=tokens, window=window, max_tokens=data.max_tokens)
    windows, said = calibration_windows(tokens, window, data.max_tokens)
    return {"perplexity": metric}, [windows], said


def _on_task(data: Data, model: Any, tokenizer: Any) -> tuple[dict[str, Metric], list[Any], str]:
    assert data.task is not None
    assert data.folder is not None
    asked = batches(load_glue(data.folder, data.task, "dev").head(data.examples), tokenizer, 32)
    shown = batches(load_glue(data.folder, data.task, "train").head(_CALIBRATION_EXAMPLES), tokenizer, 32)
    said = f"the first {_CALIBRATION_EXAMPLES} examples of the training split"
    return {"accuracy": partial(score, task=data.task, data=asked)}, [inputs for inputs, _ in shown], said


def _costs(report: CostReport, more: dict[str, float], study: Study) -> dict[str, float]:
    """Cost measures that have a value: a request that generates nothing has no latency of a token."""
    place = report.placement
    totals = report.to_dict()["totals"] | {"chips": place.chips, "utilisation": place.utilisation} | more
    return {name: totals[name] for name in study.measures if name in COST_MEASURES and totals[name] is not None}


def _costed(work: Workload, chip: Chip) -> float:
    """Share of the multiply-adds whose kind has a unit."""
    macs = [(one.kind in chip.policy, one.macs * len(block.names)) for block in work.blocks for one in block.operations]
    return sum(number for has_unit, number in macs if has_unit) / (sum(number for _, number in macs) or 1)


@contextmanager
def one_thread() -> Iterator[None]:
    """Workers do not fight for cores, and sums are added in the same order everywhere."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
