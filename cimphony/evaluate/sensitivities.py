"""Which layers of a model suffer from the chip's noise: noise in one group of layers only, and everywhere else."""

import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from cimphony.chip import Chip, CrossbarUnit
from cimphony.errors import DataError
from cimphony.evaluate.population import calibrate_on, finite, identity
from cimphony.evaluate.progress import progress_bar
from cimphony.nn import AnalogLayer, age_, analog_layers, convert_, program_, restore_
from cimphony.nn.programmed import Programmed
from cimphony.record import Draft, Record, over_chips

Groups = Mapping[str, str | Sequence[str]]
_Case = tuple[str, str | None, int]  # (none, all, only, without), group, chip seed
_Members = dict[str, dict[str, AnalogLayer]]  # group: its layers by name


def sensitivity(
    model: nn.Module,
    metric: Callable[[nn.Module], float],
    chip: Chip,
    *,
    seeds: Sequence[int],
    groups: Groups | None = None,
    age: float = 0.0,
    calibration: Any = None,
    include: Sequence[str] = ("*",),
    exclude: Sequence[str] = (),
    higher_is_better: bool = True,
    metric_name: str | None = None,
    settings: Mapping[str, Any] | None = None,
    record_path: str | Path | None = None,
    progress: bool = True,
) -> Record:
    """Rank layers by what their noise alone does to a metric. The model comes back digital, bit for bit.

    For every chip the same draws of noise are used three ways: in all layers, in one group only ("only"), and in all
    but one group ("without"). A clean layer has ideal cells; its quantisation and converters stay. "only" says which
    layer is fragile by itself, "without" what protecting it would win while the rest stays noisy.

    Args:
        model: a digital model; `metric(model)` gives one finite number.
        seeds: one manufactured chip each; all cases of a seed share its noise.
        groups: name to wildcards on layer names, for example `{"shallow": "*.h.0.*"}`; None: every layer by itself.
        age: seconds since programming.
        calibration, include, exclude: as in `evaluate_chips`.
        higher_is_better: whether a larger metric is the better one.
        record_path: rewritten after every measurement; an existing record is gone on with.

    Returns a study record. `results["rows"]`, the most harmful first, hold for each group its `weights`, `harm` (what
    its noise alone costs, in units of the metric, the mean over chips), `relief` (what cleaning it wins), and mean and
    worst of both cases. Raises DataError where a group matches no layer or a value is not finite.
    """
    if not isinstance(chip.unit_for("static_matmul"), CrossbarUnit) or not seeds:
        raise DataError("sensitivity needs a chip with a crossbar for static_matmul, and at least one seed")
    name = metric_name or getattr(metric, "__name__", type(metric).__name__)
    known = {**(settings or {}), "metric": name, "model": identity(model), "age": age}
    known |= {"include": [*include], "exclude": [*exclude]}
    convert_(model, chip, include=include, exclude=exclude)
    try:
        calibrate_on(model, calibration)
        members = _members(analog_layers(model), groups)
        known["groups"] = {key: len(one) for key, one in members.items()}
        described = chip.model_dump(mode="json")
        draft = Draft("study", f"sensitivity of {name} on {chip.name}", record_path, settings=known, chip=described)
        points: list[dict[str, Any]] = draft.results.get("points", [])
        told = partial(_results, name, points, members, 1.0 if higher_is_better else -1.0)
        todo = _cases(members, seeds, points)
        with progress_bar("sensitivity", len(todo), progress) as advance:
            for case, group, seed in _on_chips(model, members, todo, age):
                value = finite(metric(model), f"case {case} {group or seed}")
                points.append({"case": case, "group": group, "seed": seed, "value": value})
                draft.save(**told())
                advance()
    finally:
        restore_(model)
    return draft.save(**told(), complete=True)


def _members(layers: dict[str, AnalogLayer], groups: Groups | None) -> _Members:
    """The layers of every group."""
    if groups is None:
        return {name: {name: layer} for name, layer in layers.items()}
    found: _Members = {}
    for name, patterns in groups.items():
        wanted = [patterns] if isinstance(patterns, str) else patterns
        found[name] = {one: layers[one] for one in layers if any(fnmatchcase(one, pattern) for pattern in wanted)}
        if not found[name]:
            raise DataError(
                f"group {name!r} = {patterns!r} matches none of the layers, named like {next(iter(layers))!r}"
            )
    return found


def _cases(groups: Iterable[str], seeds: Sequence[int], measured: list[dict[str, Any]]) -> list[_Case]:
    """What is still to be measured."""
    done = {(one["case"], one["group"], one["seed"]) for one in measured}
    every: list[_Case] = [("none", None, seeds[0])]
    for seed in seeds:
        every.append(("all", None, seed))
        every += [(case, group, seed) for group in groups for case in ("only", "without")]
    return [case for case in every if case not in done]


def _on_chips(model: nn.Module, members: _Members, cases: Sequence[_Case], age: float) -> Iterator[_Case]:
    """Puts the model into one case after another; yields each when it is there."""
    layers = analog_layers(model)
    clean, noisy, present = _clean(layers), dict[str, list[Programmed | None]](), None
    for case, group, seed in cases:
        if seed != present:
            program_(model, seed=seed)
            if age:
                age_(model, seconds=age)
            noisy, present = {name: [one.programmed for one in layer.tiles] for name, layer in layers.items()}, seed
        some = {*members[group]} if group is not None else set[str]()
        where = {"none": set[str](), "all": {*layers}, "only": some, "without": {*layers} - some}[case]
        for name, layer in layers.items():
            for one, held in zip(layer.tiles, (noisy if name in where else clean)[name], strict=True):
                one.programmed, one.tokens_read = held, 0
        yield case, group, seed


def _clean(layers: dict[str, AnalogLayer]) -> dict[str, list[Programmed | None]]:
    """What every layer holds where its cells are ideal."""
    found: dict[str, list[Programmed | None]] = {}
    for name, layer in layers.items():
        own = layer.tiles[0].chip
        ideal = own.replace({f"units.{layer.tiles[0].unit_name}.cell.device": {"kind": "ideal"}})
        for one in layer.tiles:
            one.use(ideal)
        layer.program(seed=0)
        found[name] = [one.programmed for one in layer.tiles]
        for one in layer.tiles:
            one.use(own)
    return found


def _results(metric: str, points: list[dict[str, Any]], members: _Members, sign: float) -> dict[str, Any]:
    """What the measured cases say of every group; `sign` is 1 where a larger metric is the better one, else -1."""
    values: dict[tuple[str, str | None], dict[int, float]] = {}  # by case and group, then by seed
    for one in points:
        values.setdefault((one["case"], one["group"]), {})[one["seed"]] = one["value"]
    clean, noisy = next(iter(values["none", None].values())), values.get(("all", None), {})
    rows: list[dict[str, Any]] = []
    for group, layers in members.items():
        only, without = values.get(("only", group)), values.get(("without", group))
        if only is None or without is None:
            continue
        won = [value - noisy[seed] for seed, value in without.items()]  # on the same chip
        rows.append(
            {
                "group": group,
                "weights": sum(layer.weight.numel() for layer in layers.values()),
                "harm": sign * (clean - statistics.fmean(only.values())),
                "relief": sign * statistics.fmean(won),
                **{f"only_{key}": value for key, value in _spread(only, sign).items()},
                **{f"without_{key}": value for key, value in _spread(without, sign).items()},
            }
        )
    rows.sort(key=lambda row: -row["harm"])
    spread = _spread(noisy, sign) if noisy else {}
    results = {"metric": metric, "clean": clean, "noisy": spread, "rows": rows, "points": points}
    return results | {"figures": [_figure(rows, metric)]}


def _spread(by_seed: Mapping[int, float], sign: float) -> dict[str, float | None]:
    found = over_chips(by_seed.values())
    return {"mean": found["mean"], "sd": found["sd"], "worst": found["min" if sign > 0 else "max"]}


def _figure(rows: list[dict[str, Any]], metric: str) -> dict[str, Any]:
    names = [row["group"] for row in rows]
    series = [{"name": key, "x": names, "y": [row[key] for row in rows]} for key in ("harm", "relief")]
    return {"figure": "1", "title": "what noise in one group costs, what a clean group wins", "x": "", "y": metric,
            "series": series, "published": []}  # fmt: skip
