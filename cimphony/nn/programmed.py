"""What tiles hold after programming: parts of a weight matrix in one cell mode each, and their effective weights."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from cimphony.chip import MODES, CrossbarUnit, Mode
from cimphony.circuits import Cells, compact, write
from cimphony.mapping import slc_count

Axis = Literal["row", "column"]
Memory = Literal["stored", "regenerated"]


@dataclass(frozen=True)
class Assignment:
    """Which rows (inputs) or columns (outputs) of a weight matrix sit in which cell mode. Every index once."""

    axis: Axis
    modes: dict[Mode, Tensor]  # int64 indices

    @classmethod
    def first_in_slc(cls, axis: Axis, order: Tensor, slc_rate: float) -> "Assignment":
        """The first `slc_rate` (0 to 1) of rows or columns, in the order given, in SLC cells, the rest in MLC."""
        count = slc_count(slc_rate, order.numel())
        parts = {"slc": order[:count].sort().values.cpu(), "mlc": order[count:].sort().values.cpu()}
        return cls(axis, {mode: parts[mode] for mode in MODES if parts[mode].numel()})

    def take(self, matrix: Tensor, mode: Mode) -> Tensor:
        """The rows or columns of a matrix [row, column] in one mode."""
        return matrix[self.modes[mode]] if self.axis == "row" else matrix[:, self.modes[mode]]

    def put(self, matrix: Tensor, mode: Mode, values: Tensor) -> None:
        """Write rows or columns back, in place."""
        if self.axis == "row":
            matrix[self.modes[mode]] = values
        else:
            matrix[:, self.modes[mode]] = values

    def to(self, device: Any) -> "Assignment":
        """The same on another torch device."""
        return Assignment(self.axis, {mode: indices.to(device) for mode, indices in self.modes.items()})


def smallest_integer(integers: Tensor) -> torch.dtype:
    """The narrowest dtype that holds whole numbers."""
    largest = float(integers.abs().max()) if integers.numel() else 0.0
    return next(kind for kind in (torch.int8, torch.int16, torch.int32) if largest <= torch.iinfo(kind).max)


@dataclass(frozen=True)
class Recipe:
    """What one mode's cells are written from: the same cells every time, because noise is a function of the seed."""

    unit: CrossbarUnit
    mode: Mode
    integers: Tensor  # [row, column], in as few bytes as hold the weights
    seed: int
    name: str
    seconds: float
    largest_sum: float | None

    def write(self) -> Cells:
        """The cells."""
        given = {"seed": self.seed, "name": self.name, "seconds": self.seconds, "largest_sum": self.largest_sum}
        return write(self.unit, self.mode, self.integers.to("cpu", torch.float64), **given).to(self.integers.device)

    def keep(self, memory: Memory) -> "Cells | Recipe":
        """The cells as the reads hold them, or this, with which every read writes them anew."""
        return self if memory == "regenerated" else compact(self.write(), self.unit.input)

    def to(self, device: Any) -> "Recipe":
        """The same on another torch device."""
        return replace(self, integers=self.integers.to(device))


@dataclass(frozen=True)
class Programmed:
    """One manufactured chip's cells for a weight matrix, at one age."""

    seed: int
    seconds: float
    rewrites: int
    assignment: Assignment
    kept: dict[Mode, Cells | Recipe]  # empty where fidelity is effective: only the effective weights are read
    scale: Tensor  # float64 [column], output units of one weight integer, drift compensation included
    compensation: float  # 1: none
    held: Tensor | None  # effective weights [row, column] in the layer's dtype; None: decoded from cells when asked
    variance: Tensor | None  # float32 [row, column], in integers, added by one effective read; None: quiet
    dtype: torch.dtype
    others: tuple["Programmed", ...] = ()  # further copies of a redundant layer, whose outputs are averaged with these

    @property
    def cells(self) -> dict[Mode, Cells]:
        """The cells by mode; written anew where their noise is regenerated."""
        return {mode: one.write() if isinstance(one, Recipe) else one for mode, one in self.kept.items()}

    @property
    def memory(self) -> Memory:
        """Whether cells are stored, or regenerated at every read."""
        return "regenerated" if any(isinstance(one, Recipe) for one in self.kept.values()) else "stored"

    @property
    def weights(self) -> Tensor:
        """Effective weights [row, column]: what an ideal converter would read, the mean of all copies.

        A number a weight in the layer's dtype, decoded once and then kept, unless cells are regenerated.
        """
        return self._weights() if self.memory == "regenerated" else self._stored_weights

    @cached_property
    def _stored_weights(self) -> Tensor:
        return self._weights()

    def _weights(self) -> Tensor:
        if self.others:
            return torch.stack([self._own, *(one.weights for one in self.others)]).mean(dim=0)
        return self._own

    @property
    def _own(self) -> Tensor:
        if self.held is not None:
            return self.held
        decoded: dict[Mode, Tensor] = {mode: cells.weights() for mode, cells in self.cells.items()}
        if len(decoded) == 1:
            integers = next(iter(decoded.values()))
        else:
            rows = sum(part.shape[0] for part in decoded.values())
            shape = (
                rows if self.assignment.axis == "row" else next(iter(decoded.values())).shape[0],
                self.scale.numel(),
            )
            integers = torch.empty(shape, dtype=torch.float64, device=self.scale.device)
            for mode, part in decoded.items():
                self.assignment.put(integers, mode, part)
        return (integers * self.scale).to(self.dtype)

    def to(self, device: Any) -> "Programmed":
        """The same on another torch device."""

        def move(value: Any) -> Any:
            return None if value is None else value.to(device)

        return replace(
            self,
            assignment=self.assignment.to(device),
            kept={mode: one.to(device) for mode, one in self.kept.items()},
            scale=move(self.scale),
            held=move(self.held),
            variance=move(self.variance),
            others=tuple(one.to(device) for one in self.others),
        )


def merge(programmed: Programmed) -> Programmed:
    """Copies of effective weights as one: their mean, and the variance of the mean of their reads."""
    copies, variance = (programmed, *programmed.others), None
    if len(copies) == 1:
        return programmed
    if programmed.variance is not None:
        parts = [(one.variance, one.compensation / programmed.compensation) for one in copies]
        variance = torch.stack([part * ratio**2 for part, ratio in parts if part is not None]).sum(dim=0)
        variance = variance / len(copies) ** 2
    return replace(programmed, held=programmed.weights, variance=variance, others=())
