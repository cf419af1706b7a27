"""What tiles hold after programming: parts of a weight matrix in one cell mode each, and their effective weights."""

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from cimphony.chip import MODES, Mode
from cimphony.circuits import Cells

Axis = Literal["row", "column"]


@dataclass(frozen=True)
class Assignment:
    """Which rows (inputs) or columns (outputs) of a weight matrix sit in which cell mode. Every index once."""

    axis: Axis
    modes: dict[Mode, Tensor]  # int64 indices

    @classmethod
    def first_in_slc(cls, axis: Axis, order: Tensor, slc_rate: float) -> "Assignment":
        """The first `slc_rate` (0 to 1) of rows or columns, in the order given, in SLC cells, the rest in MLC."""
        count = math.ceil(slc_rate * order.numel() - 1e-9)
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


@dataclass(frozen=True)
class Programmed:
    """One manufactured chip's cells for a weight matrix, at one age."""

    seed: int
    seconds: float
    rewrites: int
    assignment: Assignment
    cells: dict[Mode, Cells]  # empty where fidelity is effective: only the effective weights are read
    scale: Tensor  # float64 [column], output units of one weight integer, drift compensation included
    compensation: float  # 1: none
    held: Tensor | None  # effective weights [row, column] in the layer's dtype; None: decoded from cells when asked
    variance: Tensor | None  # float32 [row, column], in integers, added by one effective read; None: quiet
    dtype: torch.dtype
    others: tuple["Programmed", ...] = ()  # further copies of a redundant layer, whose outputs are averaged with these

    @cached_property
    def weights(self) -> Tensor:
        """Effective weights [row, column]: what an ideal converter would read, the mean of all copies."""
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
            cells={mode: cells.to(device) for mode, cells in self.cells.items()},
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
