"""Studies: the points of one question in columns, which of them nothing else beats, and one row of text for each."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from cimphony.record import Record, new_record
from cimphony.report.tables import Table, chip_name, lower_is_better, plain
from cimphony.report.words import quantity, spread

UNITS = {"energy": "J", "latency": "s", "interval": "s", "throughput": "/s", "area": "m2", "power": "W"}
_COSTS = ("energy", "area", "latency")  # what a front is drawn over: the first two that were measured
_COUNTS = ("chips", "utilisation", "costed")  # of the chip, though without a unit: not what is to be kept up
_MOST = 40  # rows of a printed front


@dataclass(frozen=True)
class Study:
    """Points of one study, finished and failed, and the record that sums it up where there is one."""

    name: str
    points: tuple[Record, ...]
    summary: Record | None = None

    @cached_property
    def axes(self) -> list[str]:
        """What was varied, in the order of the first point that names it."""
        return list(dict.fromkeys(name for point in self.points for name in axes_of(point)))

    @cached_property
    def measures(self) -> list[str]:
        """What was measured, in the order of the first point that names it."""
        return list(dict.fromkeys(name for point in self.points for name in measures_of(point)))

    @cached_property
    def goals(self) -> dict[str, str | None]:
        """Measures and their better direction, `min` or `max`, as the study's definition has them."""
        asked = self.summary.settings.get("measures") if self.summary else None
        return asked if isinstance(asked, dict) else {}

    def lower(self, name: str) -> bool:
        """True for a measure of which less is better."""
        return self.goals[name] == "min" if self.goals.get(name) else lower_is_better(name)

    @cached_property
    def objectives(self) -> list[str]:
        """Two or three measures for the front: what costs across, what is to be kept up, and a second cost."""
        asked = [name for name in self.measures if self.goals.get(name)] or self.measures
        costs = [name for name in _COSTS if name in asked]
        others = [name for name in asked if not unit_of(name) and name not in _COUNTS]
        return list(dict.fromkeys([*costs[:1], *others[:1], *costs[1:], *asked]))[:3]

    @cached_property
    def front(self) -> list[int]:
        """Positions of the points that no other one beats in all objectives, by the first of them."""
        values = [[measures_of(point).get(name) for name in self.objectives] for point in self.points]
        signs = [1 if self.lower(name) else -1 for name in self.objectives]
        return pareto_front(values, signs)

    def overview(self) -> Record:
        """The study as one record: what the points share, for the parts of a report that are not about points."""
        first, done = self.points[0], self.summary or new_record("study", self.name)
        said = dict.fromkeys(done.assumptions)
        told = [{"chip": chip_name(point), "assumptions": point.assumptions} for point in self.points]
        if len({repr(point.versions) for point in self.points}) > 1:
            said["points of this study were computed with different versions of the software"] = None
        changes: dict[str, Any] = {
            "title": self.name, "created": min(point.created for point in self.points), "versions": first.versions,
            "duration": done.duration or math.fsum(point.duration for point in self.points), "assumptions": list(said),
            "settings": done.settings or {"study": self.name}, "chip": done.chip or first.chip,
            "results": done.results | ({"reports": told} if any(one["assumptions"] for one in told) else {}),
        }  # fmt: skip
        return done.model_copy(update=changes)


def axes_of(point: Record) -> dict[str, Any]:
    """The values of the axes at a point."""
    return point.settings.get("axes", {})


def measures_of(point: Record) -> dict[str, Any]:
    """What was measured at a point; nothing where it failed."""
    return point.results.get("measures") or {}


def spread_of(point: Record, name: str) -> float | None:
    """One standard deviation of a measure over the chips of a point; None where there was one chip, or no numbers."""
    found = (point.results.get("spread") or {}).get(name)
    return found.get("sd") if isinstance(found, dict) else found


def studies(records: Iterable[Record]) -> list[Study]:
    """The points among some records, study by study, each with its summary; a summary alone has its points in it."""
    points: dict[str, list[Record]] = {}
    summaries: dict[str, Record] = {}
    for record in records:
        if record.kind == "point":
            points.setdefault(str(record.settings.get("study", "study")), []).append(record)
        elif is_summary(record):
            summaries[record.title] = record
    for name, summary in summaries.items():
        if name not in points:
            points[name] = [_from_row(summary, row) for row in summary.results["points"]]
    return [Study(name, tuple(found), summaries.get(name)) for name, found in points.items() if found]


def sort_out(records: Sequence[Record]) -> tuple[list[Study], list[Record]]:
    """The studies among some records, and the runs that belong to none."""
    found = studies(records)
    return found, [one for one in records if one.kind != "point" and not (found and is_summary(one))]


def is_summary(record: Record) -> bool:
    """True for the record that sums up a study and lists its points."""
    rows = record.results.get("points") if record.kind == "study" else None
    return isinstance(rows, list) and all(isinstance(row, dict) and "axes" in row for row in rows)


def _from_row(summary: Record, row: dict[str, Any]) -> Record:
    settings = {"study": summary.title, "axes": row["axes"]}
    return summary.model_copy(update={"kind": "point", "settings": settings, "results": row, "duration": 0.0})


def pareto_front(values: Sequence[Sequence[float | None]], signs: Sequence[int]) -> list[int]:
    """Positions of the rows that no other row beats: as good in every column and better in one.

    Args:
        values: rows of numbers; one with a missing number is left out.
        signs: by column 1 where less is better, -1 where more is.
    """
    whole = [
        (tuple(sign * value for sign, value in zip(signs, row, strict=True) if value is not None), at)
        for at, row in enumerate(values)
    ]
    kept: list[tuple[tuple[float, ...], int]] = []
    for row, at in sorted(one for one in whole if len(one[0]) == len(signs) and all(map(math.isfinite, one[0]))):
        if not any(other != row and all(a <= b for a, b in zip(other, row, strict=True)) for other, _ in kept):
            kept.append((row, at))  # whatever beats a row comes before it
    return [at for _, at in kept]


def columns(study: Study) -> dict[str, Any]:
    """Everything the page draws, each number once: axes as positions in their values, measures as they are."""
    points = study.points
    return {
        "name": study.name,
        "axes": [_axis(name, [axes_of(point).get(name) for point in points]) for name in study.axes],
        "measures": [_measure(study, name) for name in study.measures],
        "objectives": study.objectives,
        "messages": {at: one.results.get("message") or "failed" for at, one in enumerate(points) if _failed(one)},
        "parts": {at: one.results["breakdown"] for at, one in enumerate(points) if one.results.get("breakdown")},
    }


def _axis(name: str, found: Sequence[Any]) -> dict[str, Any]:
    values = [one if isinstance(one, int | float) and not isinstance(one, bool) else plain(one) for one in found]
    distinct = sorted(set(values), key=lambda one: (isinstance(one, str), one))
    position = {value: at for at, value in enumerate(distinct)}
    return {"name": name, "values": distinct, "at": [position[value] for value in values]}


def _measure(study: Study, name: str) -> dict[str, Any]:
    column = {
        "name": name, "unit": unit_of(name), "lower": study.lower(name),
        "values": [_finite(measures_of(point).get(name)) for point in study.points],
    }  # fmt: skip
    spreads = [spread_of(point, name) for point in study.points]
    seeds = [_seeds(point, name) for point in study.points]
    digital = [_finite((point.results.get("digital") or {}).get(name)) for point in study.points]
    column |= {"spread": list(map(_finite, spreads))} if any(one is not None for one in spreads) else {}
    return column | ({"seeds": seeds, "digital": digital} if any(seeds) and any(digital) else {})


def _seeds(point: Record, name: str) -> list[float]:
    """What every chip of a point measured: from rows by seed, or from lists by measure."""
    found = point.results.get("per_seed") or []
    values = found.get(name, []) if isinstance(found, dict) else [row.get(name) for row in found]
    return [value for value in values if _finite(value) is not None]


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _failed(point: Record) -> bool:
    return point.results.get("status") == "failed"


def unit_of(name: str) -> str:
    """Unit of a measure that has one: `unit_of("link_energy") == "J"`."""
    return UNITS.get(name, "s" if name.endswith("_latency") else "J" if name.endswith("_energy") else "")


def front_table(study: Study) -> Table:
    """The points that nothing else beats, each with its axes and all that was measured."""
    shown = study.front[:_MOST]
    rows = [
        (*(plain(axes_of(point).get(name)) for name in study.axes), *_told(point, study.measures))
        for point in (study.points[at] for at in shown)
    ]
    left = len(study.front) - len(shown)
    numeric = frozenset(range(len(study.axes), len(study.axes) + len(study.measures)))
    return Table(
        f"Not beaten in {', '.join(study.objectives)}: {len(study.front)} of {len(study.points)} points",
        (*study.axes, *study.measures), tuple(rows), numeric, f"and {left} more" if left else "",
    )  # fmt: skip


def _told(point: Record, names: Sequence[str]) -> list[str]:
    values = [(name, measures_of(point).get(name)) for name in names]
    return [quantity(value, unit_of(name)) if unit_of(name) else spread(value, spread_of(point, name))
            for name, value in values]  # fmt: skip


def failures_table(study: Study) -> Table:
    """Points that failed, by their message."""
    counts = Counter(str(point.results.get("message") or "failed") for point in study.points if _failed(point))
    rows = tuple((message, str(count)) for message, count in counts.items())
    return Table("Points that failed", ("Message", "Points"), rows, frozenset((1,)))
