"""Fronts: what is best where several measures pull in different directions."""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from cimphony.sweep.study import Direction

Row = TypeVar("Row")
Values = Mapping[str, float]


def dominates(one: Values, other: Values, goals: Mapping[str, Direction]) -> bool:
    """Whether one is nowhere worse and somewhere better."""
    signed = [(_signed(one, name, way), _signed(other, name, way)) for name, way in goals.items()]
    return all(a <= b for a, b in signed) and any(a < b for a, b in signed)


def front(rows: Sequence[Row], goals: Mapping[str, Direction], of: Callable[[Row], Values]) -> list[Row]:
    """The rows that no other dominates (Pareto), best first in the first goal; rows without all goals are left out."""
    if not goals:
        return []
    complete = [row for row in rows if all(of(row).get(name) is not None for name in goals)]
    ordered = sorted(complete, key=lambda row: [_signed(of(row), name, way) for name, way in goals.items()])
    kept: list[Row] = []
    for row in ordered:  # sorted: only an earlier row can dominate
        if not any(dominates(of(one), of(row), goals) for one in kept):
            kept.append(row)
    return kept


def uncovered(found: Sequence[Values], wanted: Sequence[Values], goals: Mapping[str, Direction]) -> list[Values]:
    """Those of `wanted` that nothing in `found` equals or dominates: empty where `found` is as good everywhere."""
    return [
        one
        for one in wanted
        if not any(all(_signed(b, name, way) <= _signed(one, name, way) for name, way in goals.items()) for b in found)
    ]


def _signed(values: Values, name: str, way: Direction) -> float:
    return values[name] if way == "min" else -values[name]
