"""Which layers of a model suffer from the chip's noise: noise in one group of layers only, and everywhere else."""

import json
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from torch import nn

from cimphony.chip import Chip, CrossbarUnit
from cimphony.errors import DataError, StateError
from cimphony.evaluate.population import calibrate_on, identity
from cimphony.evaluate.progress import progress_bar
from cimphony.nn import AnalogLayer, Tiles, age_, analog_layers, convert_, is_converted, program_, restore_
from cimphony.nn.programmed import Programmed
from cimphony.record import Record, new_record, read_record, write_record

Groups = Mapping[str, str | Sequence[str]]
_Case = tuple[str, str | None, int]  # (none, all, only, without), group, chip seed


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
    if is_converted(model):
        raise StateError("the model is converted already: cim.restore_(model) first")
    if not isinstance(chip.unit_for("static_matmul"), CrossbarUnit) or not seeds:
        raise DataError("sensitivity needs a chip with a crossbar for static_matmul, and at least one seed")
    name = metric_name or getattr(metric, "__name__", type(metric).__name__)
    known = {**(settings or {}), "metric": name, "model": identity(model), "age": age}
    known |= {"include": [*include], "exclude": [*exclude]}
    convert_(model, chip, include=include, exclude=exclude)
    try:
        if calibration is not None:
            calibrate_on(model, calibration)
        layers = analog_layers(model)
        members = _members(layers, groups)
        run = _Run(known | {"groups": {key: len(one) for key, one in members.items()}}, chip, record_path)
        with progress_bar("sensitivity", len(seeds) * (2 * len(members) + 1) + 1, progress) as advance:
            for key in _measured(model, layers, members, seeds, age, run, advance):
                value = float(metric(model))
                if not math.isfinite(value):
                    raise DataError(f"the metric gives {value} with {key[0]} {key[1] or ''}; it must be finite")
                run.points[key] = value
                run.save(layers, members, higher_is_better)
    finally:
        restore_(model)
    return run.save(layers, members, higher_is_better, complete=True)


def _members(layers: dict[str, AnalogLayer], groups: Groups | None) -> dict[str, list[str]]:
    """Layer names of every group."""
    if groups is None:
        return {name: [name] for name in layers}
    found: dict[str, list[str]] = {}
    for name, patterns in groups.items():
        wanted = [patterns] if isinstance(patterns, str) else patterns
        found[name] = [layer for layer in layers if any(fnmatchcase(layer, pattern) for pattern in wanted)]
        if not found[name]:
            raise DataError(
                f"group {name!r} = {patterns!r} matches none of the layers, named like {next(iter(layers))!r}"
            )
    return found


def _measured(
    model: nn.Module,
    layers: dict[str, AnalogLayer],
    members: dict[str, list[str]],
    seeds: Sequence[int],
    age: float,
    run: "_Run",
    advance: Callable[[], None],
) -> Iterator[_Case]:
    """Puts the model into one case after another; yields those that are not measured yet."""
    tiles = {name: layer.tiles for name, layer in layers.items()}
    clean = _clean(model, layers)
    for at, seed in enumerate(seeds):
        cases: list[tuple[_Case, set[str]]] = [(("none", None, seed), set())] if at == 0 else []
        cases.append((("all", None, seed), {*layers}))
        for group, some in members.items():
            cases += [(("only", group, seed), {*some}), (("without", group, seed), {*layers} - {*some})]
        noisy: dict[str, list[Programmed | None]] = {}
        for key, where in cases:
            advance()
            if key in run.points:
                continue
            if not noisy:
                program_(model, seed=seed)
                if age:
                    age_(model, seconds=age)
                noisy = {name: [one.programmed for one in several] for name, several in tiles.items()}
            for name, several in tiles.items():
                _put(several, (noisy if name in where else clean)[name])
            yield key


def _clean(model: nn.Module, layers: dict[str, AnalogLayer]) -> dict[str, list[Programmed | None]]:
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


def _put(tiles: Sequence[Tiles], programmed: Sequence[Programmed | None]) -> None:
    for one, held in zip(tiles, programmed, strict=True):
        one.programmed, one.tokens_read = held, 0


class _Run:
    """Measured cases, and the record they make."""

    def __init__(self, settings: dict[str, Any], chip: Chip, path: str | Path | None) -> None:
        self.path, self.start, self.before = path, time.perf_counter(), 0.0
        title = f"sensitivity of {settings['metric']} on {chip.name}"
        plain = json.loads(json.dumps({"settings": settings, "chip": chip.model_dump(mode="json")}, default=str))
        self.record = new_record("study", title, **plain)
        self.points: dict[_Case, float] = {}
        if path is not None and Path(path).exists():
            old = read_record(path)
            if old.settings != self.record.settings or old.chip != self.record.chip:
                raise DataError(
                    f"record {str(path)!r} is of another run; give another path, or remove the file to start anew"
                )
            self.before = old.duration
            self.points = {(one["case"], one["group"], one["seed"]): one["value"] for one in old.results["points"]}

    def save(self, layers: Any, members: dict[str, list[str]], higher: bool, complete: bool = False) -> Record:
        """The record as it stands, written where a path was given."""
        results = {
            "metric": self.record.settings["metric"],
            "clean": self._clean,
            "noisy": _spread([*self._values("all", None).values()], higher),
            "rows": self._rows(layers, members, higher),
            "points": [
                {"case": case, "group": group, "seed": seed, "value": value}
                for (case, group, seed), value in self.points.items()
            ],
        }
        results["figures"] = [_figure(results["rows"], str(results["metric"]))]
        spent = self.before + time.perf_counter() - self.start
        record = self.record.model_copy(update={"results": results, "duration": spent, "complete": complete})
        if self.path is not None:
            write_record(record, self.path)
        return record

    @property
    def _clean(self) -> float:
        return next(value for (case, *_), value in self.points.items() if case == "none")

    def _values(self, case: str, group: str | None) -> dict[int, float]:
        """By seed."""
        return {seed: value for (kind, name, seed), value in self.points.items() if (kind, name) == (case, group)}

    def _rows(
        self, layers: dict[str, AnalogLayer], members: dict[str, list[str]], higher: bool
    ) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        sign = 1.0 if higher else -1.0
        noisy = self._values("all", None)
        for group, some in members.items():
            only, without = self._values("only", group), self._values("without", group)
            if not only or not without:
                continue
            won = [value - noisy[seed] for seed, value in without.items()]  # on the same chip
            rows.append(
                {
                    "group": group,
                    "weights": sum(layers[name].weight.numel() for name in some),
                    "harm": sign * (self._clean - statistics.fmean(only.values())),
                    "relief": sign * statistics.fmean(won),
                    **{f"only_{key}": value for key, value in _spread([*only.values()], higher).items()},
                    **{f"without_{key}": value for key, value in _spread([*without.values()], higher).items()},
                }
            )
        return sorted(rows, key=lambda row: -row["harm"])


def _spread(values: list[float], higher: bool) -> dict[str, float | None]:
    if not values:
        return {}
    worst = min(values) if higher else max(values)
    return {
        "mean": statistics.fmean(values),
        "sd": statistics.stdev(values) if len(values) > 1 else None,
        "worst": worst,
    }


def _figure(rows: list[dict[str, Any]], metric: str) -> dict[str, Any]:
    names = [row["group"] for row in rows]
    series = [{"name": key, "x": names, "y": [row[key] for row in rows]} for key in ("harm", "relief")]
    return {"figure": "1", "title": "what noise in one group costs, what a clean group wins", "x": "", "y": metric,
            "series": series, "published": []}  # fmt: skip
