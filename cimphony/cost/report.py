"""CostReport: what a workload costs on a chip. Totals are sums of the parts, so views and totals agree."""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from cimphony.errors import DataError
from cimphony.mapping import Placement, layout

View = Literal["component", "layer", "phase", "operation"]
_SEGMENTS = 4000
VIEWS: tuple[View, ...] = ("component", "layer", "phase", "operation")


@dataclass(slots=True)
class Entry:
    """What one component spends on one operation in all repetitions of a block; or the time an operation takes."""

    component: str  # unit.component, or link.name
    layers: tuple[str, ...]
    phase: str
    operation: str
    energy: float = 0.0  # J a request, all layers together
    latency: float = 0.0  # s an inference, all layers together


@dataclass(frozen=True)
class CostReport:
    """Energy, time and area of one request (the whole batch). SI units: J, s, m2, W."""

    model: str
    chip: str
    batch: int
    tokens: int  # generated in one request; of the prompt where nothing is generated
    interval: float  # s between the results of a steady stream of requests
    entries: tuple[Entry, ...] = field(repr=False)
    areas: dict[str, float] = field(repr=False)  # m2 by component, all chips
    leakage: dict[str, float] = field(repr=False)  # W by component, all chips
    placement: Placement = field(repr=False)
    assumptions: list[str] = field(default_factory=list[str])

    @cached_property
    def dynamic_energy(self) -> float:
        """Energy of the operations of one request [J], links apart."""
        return math.fsum(entry.energy for entry in self.entries if not entry.component.startswith("link."))

    @cached_property
    def link_energy(self) -> float:
        """Energy of the transfers between units and chips of one request [J]."""
        return math.fsum(entry.energy for entry in self.entries if entry.component.startswith("link."))

    @cached_property
    def static_energy(self) -> float:
        """Leakage and idle power of all chips over the interval between two results [J]."""
        return math.fsum(power * self.interval for power in self.leakage.values())

    @property
    def energy(self) -> float:
        """Energy of one request in a steady stream [J]."""
        return math.fsum((self.dynamic_energy, self.static_energy, self.link_energy))

    @cached_property
    def latency(self) -> float:
        """Time of one request on an idle system [s]."""
        return math.fsum(entry.latency for entry in self.entries)

    @property
    def throughput(self) -> float:
        """Sequences a second in a steady stream: batch / interval; 0 where nothing was costed."""
        return self.batch / self.interval if self.interval else 0.0

    @property
    def tokens_per_second(self) -> float | None:
        """Tokens a second in a steady stream: generated ones, or prompt tokens where nothing is generated."""
        return self.tokens * self.throughput if self.tokens and self.interval else None

    @cached_property
    def token_latency(self) -> float | None:
        """Time from one generated token to the next of one sequence [s]; None where nothing is generated."""
        spent = math.fsum(entry.latency for entry in self.entries if entry.phase == "decode")
        return spent / self.tokens if spent else None

    @property
    def power(self) -> float:
        """Mean power in a steady stream [W]; 0 where nothing was costed."""
        return self.energy / self.interval if self.interval else 0.0

    @cached_property
    def area(self) -> float:
        """Silicon of all chips used, as far as the description gives it [m2]."""
        return math.fsum(self.areas.values())

    def by(self, view: View) -> list[dict[str, Any]]:
        """One row per component, layer, phase or operation; the columns sum to the totals.

        Rows by component have energy, static energy and area; the others energy (leakage shared out by time) and
        latency. Raises DataError for any other view.
        """
        if view == "component":
            return self._by_component()
        if view == "layer":
            return self._grouped(view, lambda entry: entry.layers)
        if view in VIEWS:
            return self._grouped(view, lambda entry: (getattr(entry, view),))
        raise DataError(f"by({view!r}) is not a view of a cost report; choose one of {', '.join(VIEWS)}")

    def compare(self, other: "CostReport") -> list[dict[str, Any]]:
        """Rows of quantity, unit, this, other, advantage: above 1 this one is better. None where either is zero."""
        smaller = (("energy", "J"), ("latency", "s"), ("interval", "s"), ("area", "m2"))
        rows = [_compared(name, unit, getattr(self, name), getattr(other, name)) for name, unit in smaller]
        rate = _compared("throughput", "/s", self.throughput, other.throughput)
        if rate["advantage"]:
            rate["advantage"] = 1 / rate["advantage"]
        return [*rows[:3], rate, rows[3]]

    def to_dict(self) -> dict[str, Any]:
        """Totals, every view and the assumptions as plain data."""
        names = ("energy", "dynamic_energy", "static_energy", "link_energy", "latency", "interval", "throughput")
        totals = {name: getattr(self, name) for name in (*names, "tokens_per_second", "token_latency", "power", "area")}
        place = self.placement
        return {
            "model": self.model,
            "chip": self.chip,
            "batch": self.batch,
            "totals": totals,
            "chips": place.chips,
            "utilisation": place.utilisation,
            "placement": _layout(place),
            "by": {view: self.by(view) for view in VIEWS},
            "assumptions": list(self.assumptions),
        }

    def to_json(self) -> str:
        """`to_dict` as JSON."""
        return json.dumps(self.to_dict(), indent=1)

    def _by_component(self) -> list[dict[str, Any]]:
        names = dict.fromkeys([*self.areas, *self.leakage])
        names |= dict.fromkeys(entry.component for entry in self.entries if entry.energy)
        spent = dict.fromkeys(names, 0.0)
        for entry in self.entries:
            if entry.energy:
                spent[entry.component] += entry.energy
        static = {name: self.leakage.get(name, 0.0) * self.interval for name in names}
        rows = [
            {
                "component": name,
                "energy": spent[name] + static[name],
                "static_energy": static[name],
                "area": self.areas.get(name, 0.0),
            }
            for name in names
        ]
        return [row for row in rows if row["energy"] or row["area"]]

    def _grouped(self, view: str, keys: Callable[[Entry], tuple[str, ...]]) -> list[dict[str, Any]]:
        energy: dict[str, float] = {}
        latency: dict[str, float] = {}
        for entry in self.entries:
            names = keys(entry)
            for name in names:
                energy[name] = energy.get(name, 0.0) + entry.energy / len(names)
                latency[name] = latency.get(name, 0.0) + entry.latency / len(names)
        static = self.static_energy / self.latency if self.latency else 0.0
        return [
            {view: name, "energy": energy[name] + static * latency[name], "latency": latency[name]} for name in energy
        ]


def _layout(place: Placement) -> dict[str, Any] | None:
    """What sits where: segments are [chip, unit below it, block, first array, arrays]; None without arrays.

    Of a large system only the first ones: hundreds of thousands of alike tiles tell nobody anything.
    """
    if not place.capacity:
        return None
    segments = layout(place)
    return {
        "level": place.level,
        "chips": place.chips,
        "levels_per_chip": max(1, place.capacity // max(1, place.per_level)),
        "arrays_per_level": place.per_level,
        "segments": [[one.chip, one.level, one.block, one.start, one.arrays] for one in segments[:_SEGMENTS]],
        "segments_left_out": max(0, len(segments) - _SEGMENTS),
    }


def _compared(name: str, unit: str, this: float, other: float) -> dict[str, Any]:
    return {
        "quantity": name,
        "unit": unit,
        "this": this,
        "other": other,
        "advantage": other / this if this and other else None,
    }
