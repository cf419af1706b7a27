"""A population of chips: the same model on many draws of manufacturing noise, at several ages and fidelities."""

import hashlib
import math
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from itertools import groupby
from operator import index, itemgetter
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cimphony.chip import Chip, CrossbarUnit, check_chip
from cimphony.errors import DataError, StateError
from cimphony.evaluate.metrics import evaluating, run_batch
from cimphony.evaluate.progress import progress_bar
from cimphony.nn import (
    Calibration,
    age_,
    analog_layers,
    calibrate,
    convert_,
    is_converted,
    program_,
    recalibrate_,
    restore_,
    summary_rows,
)
from cimphony.record import Draft, Record, over_chips

_Point = tuple[str, int, float]  # fidelity, seed, age


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
        calibration: a batch (a tensor, or a mapping of them) or a list of batches to learn ranges from; or what
            `calibration_of` took from a model that was tuned on chips.
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
    seeds, ages = _whole(seeds), [float(age) for age in ages]
    grid = dict.fromkeys((fidelity, seed, age) for fidelity in fidelities for seed in seeds for age in sorted(ages))
    if not grid:
        raise DataError("seeds, ages and fidelities must each have an entry; for one fresh chip, seeds=[0]")
    name = metric_name or getattr(metric, "__name__", type(metric).__name__)
    placing = {"include": [*include], "exclude": [*exclude], "chips": chips}
    axes = {"seeds": [*seeds], "ages": [*ages], "fidelities": fidelities}
    known = {**(settings or {}), "metric": name, "model": identity(model), **placing, **axes}
    draft = Draft(
        "evaluation", f"{name} of {type(model).__name__} on {chip.name}", record_path, may_grow=axes, settings=known,
        chip=chip.model_dump(mode="json"), results={"metric": name, "digital": None, "points": [], "groups": []},
    )  # fmt: skip
    done = {(one["fidelity"], one["seed"], one["age"]) for one in draft.results["points"]}
    todo = [point for point in grid if point not in done]
    on_chips = _aged_chips(model, chip, todo, calibration, placing)
    with progress_bar(chip.name, len(todo) + 1, progress) as advance, closing(on_chips):
        for _ in _filled(draft, model, metric, chip.name, on_chips):
            advance()
    return draft.save(complete=True)


def _filled(
    draft: Draft, model: nn.Module, metric: Callable[[nn.Module], Any], chip: str, on_chips: Iterable[_Point]
) -> Iterator[None]:
    """Writes the digital value, then one point for each chip that the model is on; yields after each."""
    if draft.results["digital"] is None:
        found = _measured(metric(model), "the digital model")
        draft.save(digital=found.pop("value"), **{f"digital_{key}": one for key, one in found.items()})
    yield
    for fidelity, seed, age in on_chips:
        draft.change(layers=_with_new(draft.record.layers, summary_rows(model)))
        found = _measured(metric(model), f"{chip}, seed {seed}, age {age:g} s, {fidelity}")
        draft.change(assumptions=_with_unread(draft.record.assumptions, model))
        points = [*draft.results["points"], {"seed": seed, "age": age, "fidelity": fidelity, **found}]
        draft.save(points=points, groups=_groups(points))
        yield


def _aged_chips(
    model: nn.Module, chip: Chip, points: Sequence[_Point], calibration: Any, placing: dict[str, Any]
) -> Generator[_Point]:
    """Puts the model on one chip after another; yields each point when it is there. Digital again at the end."""
    for fidelity, group in groupby(points, key=itemgetter(0)):
        convert_(model, _with_fidelity(chip, fidelity), **placing)
        try:
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
    """Learn the ranges of a converted model from a batch or a list of them, or recall them; None: nothing is learnt."""
    if calibration is None:
        return
    if isinstance(calibration, Calibration):
        recalibrate_(model, calibration)
        return
    batches = [calibration] if isinstance(calibration, torch.Tensor | Mapping) else calibration
    device = next(model.parameters()).device
    with evaluating(model), calibrate(model):
        for batch in batches:
            run_batch(model, batch, device)


def _with_new(known: list[dict[str, Any]], rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What is applied to every chip, once for each layer and fidelity."""
    there = {(row["layer"], row.get("fidelity")) for row in known}
    new = [row for row in rows if (row["layer"], row.get("fidelity")) not in there]
    return known + [{key: value for key, value in row.items() if key not in ("seed", "age")} for row in new]


def _with_unread(known: list[str], model: nn.Module) -> list[str]:
    """Layers whose cells took no part: nothing reaches them, or the model takes their weights without a call."""
    unread = [name for name, one in analog_layers(model).items() if not any(t.tokens_read for t in one.tiles)]
    said = f"layers on the chip that were not read, and add no noise: {', '.join(unread)}"
    return [*known, said] if unread and said not in known else known


def _groups(points: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean and spread over chips for each age and fidelity."""
    groups: dict[tuple[str, float], list[float]] = {}
    for point in points:
        groups.setdefault((point["fidelity"], point["age"]), []).append(point["value"])
    return [{"fidelity": kind, "age": age, **over_chips(values)} for (kind, age), values in sorted(groups.items())]


def _whole(seeds: Any) -> list[int]:
    """Plain integers, which records can hold, of whatever counts as such."""
    try:
        return [index(seed) for seed in seeds]
    except TypeError:
        raise DataError(
            f"seeds = {seeds!r} is not allowed: give whole numbers, one for each chip, for example range(5)"
        ) from None


def _own_fidelity(chip: Chip) -> str:
    unit = chip.unit_for("static_matmul")
    return unit.fidelity if isinstance(unit, CrossbarUnit) else "exact"


def _with_fidelity(chip: Chip, fidelity: str) -> Chip:
    if fidelity == _own_fidelity(chip):
        return chip
    return chip.replace({f"units.{chip.policy['static_matmul']}.fidelity": fidelity})


def _measured(given: float | Mapping[str, float], where: str) -> dict[str, Any]:
    """The value of a metric, with all its numbers by name where it gives several."""
    if not isinstance(given, Mapping):
        return {"value": finite(given, where)}
    details = {name: finite(one, where) for name, one in given.items()}
    return {"value": next(iter(details.values())), "details": details}


def finite(value: float, where: str) -> float:
    """What a metric gives; DataError where it is NaN or Inf."""
    if not math.isfinite(value):
        raise DataError(f"the metric gives {value} on {where}; it must be a finite number")
    return float(value)


def identity(model: nn.Module) -> dict[str, str]:
    """Class and a digest of all parameters and buffers, so that a record does not go on with another model."""
    digest = hashlib.blake2b(digest_size=8)
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return {"class": type(model).__name__, "weights": digest.hexdigest()}
