"""A population of chips: the same model on many draws of manufacturing noise, at several ages and fidelities."""

import hashlib
import json
import math
import statistics
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cimphony.chip import Chip, CrossbarUnit, check_chip
from cimphony.errors import DataError, StateError
from cimphony.evaluate.metrics import evaluating, run_batch
from cimphony.evaluate.progress import progress_bar
from cimphony.nn import age_, analog_layers, calibrate, convert_, is_converted, program_, restore_, summary_rows
from cimphony.record import Record, new_record, read_record, write_record

_GRID = ("seeds", "ages", "fidelities")  # may grow when a run goes on from its record


def evaluate_chips(
    model: nn.Module,
    metric: Callable[[nn.Module], float | Mapping[str, float]],
    chip: Chip,
    *,
    seeds: Sequence[int],
    ages: Sequence[float] = (0.0,),
    fidelities: Sequence[str | None] = (None,),
    calibration: Any = None,
    include: Sequence[str] = ("*",),
    exclude: Sequence[str] = (),
    chips: int | None = None,
    metric_name: str | None = None,
    settings: Mapping[str, Any] | None = None,
    record_path: str | Path | None = None,
    progress: bool = True,
) -> Record:
    """Measure a model digitally, then on every chip of a population. It comes back digital, bit for bit.

    Args:
        model: a digital model; `metric(model)` gives one finite number, or several by name: the first is the value
            of a point, all are its `details`.
        seeds: one manufactured chip each.
        ages: seconds since programming.
        fidelities: `exact` or `effective`; None: the chip's own.
        calibration: a batch (a tensor, or a mapping of them) or a list of batches to learn ranges from.
        include, exclude, chips: as in `convert_`.
        metric_name: for the record, for example `perplexity per byte`.
        settings: what else it takes to run this again (model, data, window, ...), for the record.
        record_path: rewritten after every point, so an interruption loses none; an existing record is gone on with.
        progress: show a bar with the time left, on a terminal.

    Returns an evaluation record; `results` holds `digital`, `points` (one per seed, age and fidelity) and `groups`
    (mean, sd over the sample, min and max per age and fidelity; sd is None for one chip).
    Raises DataError where a value is not finite, or the record at `record_path` is of other settings.
    """
    check_chip(chip)
    if is_converted(model):
        raise StateError("the model is converted already: cim.restore_(model) first")
    fidelities = [_own_fidelity(chip) if one is None else one for one in fidelities]
    grid = dict.fromkeys((fidelity, seed, age) for fidelity in fidelities for seed in seeds for age in sorted(ages))
    if not grid:
        raise DataError("seeds, ages and fidelities must each have an entry; for one fresh chip, seeds=[0]")
    name = metric_name or getattr(metric, "__name__", type(metric).__name__)
    placing = {"include": [*include], "exclude": [*exclude], "chips": chips}
    known = {"metric": name, "model": identity(model), **placing}
    known |= {"seeds": [*seeds], "ages": [*ages], "fidelities": fidelities}
    run = _Run(f"{name} of {type(model).__name__} on {chip.name}", chip, {**(settings or {}), **known}, record_path)
    todo = [point for point in grid if point not in run.points]
    on_chips = _aged_chips(model, chip, todo, calibration, placing)
    with progress_bar(chip.name, len(todo) + 1, progress) as advance, closing(on_chips):
        if run.digital is None:
            run.digital = _measured(metric(model), "the digital model")
            run.save()
        advance()
        for fidelity, seed, age in on_chips:
            run.add_layers(summary_rows(model))
            where = f"{chip.name}, seed {seed}, age {age:g} s, {fidelity}"
            run.points[fidelity, seed, age] = _measured(metric(model), where)
            run.note_unread(model)
            run.save()
            advance()
    return run.save(complete=True)


def _aged_chips(
    model: nn.Module,
    chip: Chip,
    points: Sequence[tuple[str, int, float]],
    calibration: Any,
    placing: dict[str, Any],
) -> Generator[tuple[str, int, float]]:
    """Puts the model on one chip after another; yields each point when it is there. Digital again at the end."""
    for fidelity, group in groupby(points, key=itemgetter(0)):
        convert_(model, _with_fidelity(chip, fidelity), **placing)
        try:
            if calibration is not None:
                calibrate_on(model, calibration)
            present = None
            for _, seed, age in group:
                if seed != present:
                    program_(model, seed=seed)
                    present = seed
                if age != 0:
                    age_(model, seconds=age)
                yield fidelity, seed, age
        finally:
            restore_(model)


def calibrate_on(model: nn.Module, calibration: Any) -> None:
    """Learn the ranges of a converted model from a batch or a list of them."""
    batches = [calibration] if isinstance(calibration, torch.Tensor | Mapping) else calibration
    device = next(model.parameters()).device
    with evaluating(model), calibrate(model):
        for batch in batches:
            run_batch(model, batch, device)


class _Run:
    """What is finished, and its record on disk."""

    def __init__(self, title: str, chip: Chip, settings: dict[str, Any], path: str | Path | None):
        settings = json.loads(json.dumps(settings, default=str))
        self.path = path
        self.record = new_record("evaluation", title, settings=settings, chip=chip.model_dump(mode="json"))
        self.points: dict[tuple[str, int, float], dict[str, Any]] = {}  # value, and details where there are any
        self.digital: dict[str, Any] | None = None
        self.before = 0.0  # seconds spent by earlier runs
        self.start = time.perf_counter()
        if path is not None and Path(path).exists():
            self._go_on(read_record(path))

    def _go_on(self, old: Record) -> None:
        for field, was, now in _differences(old, self.record):
            raise DataError(
                f"record {str(self.path)!r} is of another run: {field} was {was!r}, now it is {now!r}. "
                "Give another record_path (command line: --out), or remove the file to start anew"
            )
        self.before = old.duration
        if old.results.get("digital") is not None:
            self.digital = _found(old.results["digital"], old.results.get("digital_details"))
        for one in old.results.get("points", []):
            self.points[one["fidelity"], one["seed"], one["age"]] = _found(one["value"], one.get("details"))
        self.record = self.record.model_copy(update={"created": old.created, "layers": old.layers})

    def add_layers(self, rows: list[dict[str, Any]]) -> None:
        """What is applied to every chip, once for each layer and fidelity."""
        known = {(row["layer"], row.get("fidelity")) for row in self.record.layers}
        new = [
            {key: value for key, value in row.items() if key not in ("seed", "age")}
            for row in rows
            if (row["layer"], row.get("fidelity")) not in known
        ]
        self.record = self.record.model_copy(update={"layers": [*self.record.layers, *new]})

    def note_unread(self, model: nn.Module) -> None:
        """Layers whose cells took no part: nothing reaches them, or the model takes their weights without a call."""
        unread = [name for name, one in analog_layers(model).items() if not any(t.tokens_read for t in one.tiles)]
        said = f"layers on the chip that were not read, and add no noise: {', '.join(unread)}"
        if unread and said not in self.record.assumptions:
            self.record = self.record.model_copy(update={"assumptions": [*self.record.assumptions, said]})

    def save(self, complete: bool = False) -> Record:
        """Write the record as it stands now."""
        points = [
            {"seed": seed, "age": age, "fidelity": kind, **found} for (kind, seed, age), found in self.points.items()
        ]
        results = {
            "metric": self.record.settings["metric"],
            "digital": self.digital and self.digital["value"],
            "points": points,
            "groups": _groups(points),
        }
        if self.digital and "details" in self.digital:
            results["digital_details"] = self.digital["details"]
        duration = self.before + time.perf_counter() - self.start
        self.record = self.record.model_copy(update={"results": results, "duration": duration, "complete": complete})
        if self.path is not None:
            write_record(self.record, self.path)
        return self.record


def _groups(points: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean and spread over chips for each age and fidelity."""
    groups: dict[tuple[str, float], list[float]] = {}
    for point in points:
        groups.setdefault((point["fidelity"], point["age"]), []).append(point["value"])
    return [
        {
            "fidelity": fidelity,
            "age": age,
            "chips": len(values),
            "mean": statistics.fmean(values),
            "sd": statistics.stdev(values) if len(values) > 1 else None,
            "min": min(values),
            "max": max(values),
        }
        for (fidelity, age), values in sorted(groups.items())
    ]


def _differences(old: Record, new: Record) -> Iterator[tuple[str, Any, Any]]:
    """(field, old, new) for what must be the same for a run to go on."""
    if old.kind != new.kind:
        yield "kind", old.kind, new.kind
    if old.chip != json.loads(json.dumps(new.chip)):
        yield "chip", (old.chip or {}).get("name"), f"{(new.chip or {})['name']} with other fields"
    for key in sorted({*old.settings, *new.settings} - {*_GRID}):
        if old.settings.get(key) != new.settings.get(key):
            yield f"settings.{key}", old.settings.get(key), new.settings.get(key)


def _own_fidelity(chip: Chip) -> str:
    unit = chip.unit_for("static_matmul")
    return unit.fidelity if isinstance(unit, CrossbarUnit) else "exact"


def _with_fidelity(chip: Chip, fidelity: str) -> Chip:
    if fidelity == _own_fidelity(chip):
        return chip
    return chip.replace({f"units.{chip.policy['static_matmul']}.fidelity": fidelity})


def _measured(given: float | Mapping[str, float], where: str) -> dict[str, Any]:
    """The value of a metric, with all its numbers by name where it gives several."""
    if isinstance(given, Mapping):
        details = {name: float(one) for name, one in given.items()}
        value = next(iter(details.values()))
    else:
        details, value = None, float(given)
    for one in (value, *(details or {}).values()):
        if not math.isfinite(one):
            raise DataError(f"the metric gives {one} on {where}; it must be a finite number")
    return _found(value, details)


def _found(value: float, details: dict[str, float] | None) -> dict[str, Any]:
    return {"value": value} if details is None else {"value": value, "details": details}


def identity(model: nn.Module) -> dict[str, str]:
    """Class and a digest of all parameters and buffers, so that a record does not go on with another model."""
    digest = hashlib.blake2b(digest_size=8)
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return {"class": type(model).__name__, "weights": digest.hexdigest()}
