"""Analog content-addressable memory: any function of one number as intervals, the rows of its output bits.

A row matches an input x where low <= x < high. A bit of the code is 1 where any of its rows matches; Gray code is then
decoded by XOR. `codes` is that definition, word for word; `Table` is the fast way and gives the same codes, with any
thresholds: merged thresholds cut the line into segments of one code each, whatever the rows hold.

Source: NL-DPE (arXiv 2511.13950) with its released code; docs/nl_dpe.md has the equations.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from cimphony.chip import Acam, LogLinearDevice, ThresholdLaw, Thresholds
from cimphony.circuits.encoding import round_half_up
from cimphony.devices.log_linear import spread
from cimphony.errors import DataError
from cimphony.hardware import acam as rows_of_codes
from cimphony.random import NORMAL_BITS, Stream

Function = Callable[[Tensor], Tensor]
_POINTS = 1 << 14  # of the grid on which codes are compared; between two of them a function is taken as monotone
_BISECTIONS = 64
_CELLS, _CELLS_OF_MANY = 1 << 16, 1 << 12  # of the look-up table of one ACAM, and of each of many
_ROUNDING = 2.0**-5  # cells; more than float32 arithmetic errs in the number of a cell
_AT_ONCE = 1 << 17


@dataclass(frozen=True)
class Quantiser:
    """Codes 0 to 2^bits - 1 for values from `low` to `high`, rounded half up, clipped outside."""

    bits: int
    low: float
    high: float

    @property
    def top(self) -> int:
        """The highest code."""
        return (1 << self.bits) - 1

    @property
    def step(self) -> float:
        """Between two codes; 1 where the range is a single value."""
        return (self.high - self.low) / self.top if self.high > self.low else 1.0

    def codes(self, values: Tensor) -> Tensor:
        """Values, any shape, to codes of the same dtype."""
        return round_half_up((values - self.low) / self.step).clamp(0, self.top)

    def values(self, codes: Tensor) -> Tensor:
        """Codes, any shape, to float64 values."""
        return self.low + codes.to(torch.float64) * self.step


@dataclass(frozen=True)
class Intervals:
    """Rows of one ACAM, or of many with the same function.

    Inputs are float32, so bounds are too. An infinite bound is a cell that matches everything on that side; a row
    with low = +inf never matches.
    """

    low: Tensor  # float32 [unit, row]
    high: Tensor  # float32 [unit, row]
    bit: Tensor  # int64 [row]: which bit of the code a row belongs to
    quantiser: Quantiser
    gray: bool
    domain: tuple[float, float]  # inputs that voltages are laid out for

    @property
    def rows(self) -> list[int]:
        """Rows of every bit, the lowest bit first."""
        return torch.bincount(self.bit, minlength=self.quantiser.bits).tolist()


@lru_cache(maxsize=512)  # every chip of a population, and every step of training, asks for the same rows
def compile_function(
    function: Function, domain: tuple[float, float], bits: int, *, gray: bool = True,
    output: tuple[float, float] | None = None, rows: int | None = None,
) -> Intervals:  # fmt: skip
    """The rows that compute a function of one number, quantised to `bits`.

    Args:
        function: elementwise, float64 to float64, finite on the domain.
        domain: inputs that occur; beyond it the code of its end holds.
        output: values that the codes span; None: those of the function over the domain.
        rows: budget over all bits; rows of the narrowest intervals are left out beyond it. None: no budget.

    Raises DataError where the domain is empty or the function is not finite on it.
    """
    if not domain[0] < domain[1]:
        raise DataError(f"an ACAM's domain must not be empty, and {domain} is; give low < high")
    grid = torch.linspace(*domain, _POINTS, dtype=torch.float64)
    values = function(grid)
    if not bool(torch.isfinite(values).all()):
        raise DataError(f"the function is not finite from {domain[0]:g} to {domain[1]:g}; choose a smaller domain")
    quantiser = Quantiser(bits, *(output or (float(values.min()), float(values.max()))))
    breaks, codes = _segments(function, grid, quantiser)
    found = rows_of_codes(codes.tolist(), first=0, gray=gray, minimum=0).intervals
    edges = torch.cat([_full(-torch.inf), breaks, _full(torch.inf)])
    low, high, bit = [], [], []
    for index in range(bits):
        runs = torch.from_numpy(found[index]) if index < len(found) else torch.empty(0, 2, dtype=torch.int64)
        low.append(edges[runs[:, 0]] if len(runs) else _full(torch.inf))  # a bit that is never 1 has a row all the same
        high.append(edges[runs[:, 1]] if len(runs) else _full(-torch.inf))
        bit.append(torch.full((max(1, len(runs)),), index))
    made = Intervals(torch.cat(low)[None], torch.cat(high)[None], torch.cat(bit), quantiser, gray, domain)
    return made if rows is None else _within(made, rows)


def _full(value: float) -> Tensor:
    return torch.tensor([value], dtype=torch.float32)


def _segments(function: Function, grid: Tensor, quantiser: Quantiser) -> tuple[Tensor, Tensor]:
    """Inputs at which the code changes, the first with the new code (float32), and the codes of all segments."""
    codes = quantiser.codes(function(grid))
    jump = torch.diff(codes)
    cell = torch.repeat_interleave(torch.arange(len(jump)), jump.abs().to(torch.int64))
    nth = torch.arange(len(cell)) - torch.searchsorted(cell, cell) + 1
    sign = jump[cell].sign()
    wanted = codes[cell] + nth * sign
    before, after = grid[cell], grid[cell + 1]
    for _ in range(_BISECTIONS):
        middle = (before + after) / 2
        there = (quantiser.codes(function(middle)) - wanted) * sign >= 0
        before, after = torch.where(there, before, middle), torch.where(there, middle, after)
    breaks = _up(after)
    last = torch.ones_like(breaks, dtype=torch.bool)
    last[:-1] = breaks[1:] > breaks[:-1]  # a jump over several codes at one input
    return breaks[last], torch.cat([codes[:1], wanted[last]]).to(torch.int64)


def _up(values: Tensor) -> Tensor:
    """The next float32 that is not below: x >= value then means the same for float32 inputs."""
    rounded = values.to(torch.float32)
    return torch.where(rounded < values, torch.nextafter(rounded, torch.full_like(rounded, torch.inf)), rounded)


def _within(made: Intervals, budget: int) -> Intervals:
    """Leave out the narrowest rows, but for the last of a bit."""
    if budget < made.quantiser.bits:
        raise DataError(f"rows = {budget} is too few: each of {made.quantiser.bits} bits needs one")
    width = (made.high - made.low)[0]
    keep = torch.ones_like(made.bit, dtype=torch.bool)
    for row in torch.sort(width, stable=True).indices.tolist():
        if int(keep.sum()) <= budget:
            break
        keep[row] = int((made.bit[keep] == made.bit[row]).sum()) == 1
    return replace(made, low=made.low[:, keep], high=made.high[:, keep], bit=made.bit[keep])


def codes(inputs: Tensor, rows: Intervals) -> Tensor:
    """The definition: int64 codes of inputs [..., unit], or of any shape where there is one unit."""
    x = inputs.to(torch.float32).unsqueeze(-1)
    low, high = (side if len(side) > 1 else side[0] for side in (rows.low, rows.high))
    matches = (x >= low) & ((x < high) | (high == torch.inf))
    word = torch.zeros(inputs.shape, dtype=torch.int64)
    for bit in range(rows.quantiser.bits):
        word |= matches[..., rows.bit == bit].any(dim=-1).to(torch.int64) << bit
    if rows.gray:
        for shift in (1, 2, 4, 8):
            word = word ^ (word >> shift)
    return word


class Table:
    """The fast way: values of float32 inputs, equal to those of `codes`.

    Inputs fall into equal cells; a cell without a threshold has one value, looked up. In the others, less than a
    hundredth of all, the merged thresholds are searched.
    """

    def __init__(self, rows: Intervals) -> None:
        units = len(rows.low)
        self.quantiser, self.units = rows.quantiser, units
        bounds = torch.cat([rows.low, rows.high], dim=1)
        self.breaks = torch.where(bounds.isfinite(), bounds, torch.inf).sort(dim=1).values  # [unit, break]
        points = torch.cat([torch.full((units, 1), -torch.inf), self.breaks], dim=1)
        found = codes(points.T, rows).T if units > 1 else codes(points, rows)
        self.values = rows.quantiser.values(found).to(torch.float32)  # [unit, segment]
        self.cells = _CELLS if units == 1 else _CELLS_OF_MANY
        finite = self.breaks[self.breaks.isfinite()]
        low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 0.0)
        self.per_input = (self.cells - 4) / (high - low) if high > low else 1.0
        self.start = torch.tensor(1.5 - low * self.per_input)  # the first threshold lies in the second cell
        self.first = torch.arange(units, dtype=torch.int32) * self.cells
        self.look_up = self._look_up()

    def _place(self, inputs: Tensor, out: Tensor | None = None) -> Tensor:
        return torch.add(self.start, inputs, alpha=self.per_input, out=out).clamp_(0, self.cells - 1)

    def _look_up(self) -> Tensor:
        """Values by cell [unit x cell]; NaN where a threshold lies in the cell or so near that rounding may move it."""
        counted = self.breaks.isfinite()
        place = self._place(torch.where(counted, self.breaks, 0.0))
        starts = torch.zeros(self.units, self.cells, dtype=torch.int64)
        starts.scatter_add_(1, place.to(torch.int64), counted.to(torch.int64))
        table = self.values.gather(1, starts.cumsum(dim=1))
        for shift in (-_ROUNDING, _ROUNDING):
            cell = (place + shift).clamp(0, self.cells - 1).to(torch.int64)
            table.scatter_(1, torch.where(counted, cell, 1), torch.nan)
        return table.reshape(-1)

    def __call__(self, inputs: Tensor) -> Tensor:
        """Values (float32) of inputs [..., unit], or of any shape where there is one unit."""
        x = inputs.to(torch.float32).contiguous().view(-1)
        found = torch.empty_like(x)
        step = max(1, _AT_ONCE // self.units) * self.units
        places, cells = x.new_empty(min(step, len(x))), x.new_empty(min(step, len(x)), dtype=torch.int32)
        for first in range(0, len(x), step):  # what is worked on stays in cache
            part = x[first : first + step]
            cell = cells[: len(part)].copy_(self._place(part, places[: len(part)]))
            if self.units > 1:
                cell.view(-1, self.units).add_(self.first)
            values = found[first : first + step]
            torch.index_select(self.look_up, 0, cell, out=values)
            near = _where_nan(values)
            if len(near):
                values.index_copy_(0, near, self._search(part.index_select(0, near), near % self.units))
        return found.view(inputs.shape)

    def _search(self, inputs: Tensor, unit: Tensor) -> Tensor:
        if self.units == 1:
            return self.values[0].index_select(0, torch.bucketize(inputs, self.breaks[0], right=True))
        low, high = torch.zeros_like(unit), torch.full_like(unit, self.breaks.shape[1])
        for _ in range(self.breaks.shape[1].bit_length()):  # thresholds not above the input
            middle = (low + high) // 2
            above = self.breaks[unit, middle.clamp(max=self.breaks.shape[1] - 1)] > inputs
            low, high = torch.where(above | (low >= high), low, middle + 1), torch.where(above, middle, high)
        return self.values[unit, low]

    def codes(self, inputs: Tensor) -> Tensor:
        """What `codes` returns."""
        return self.quantiser.codes(self(inputs).to(torch.float64)).to(torch.int64)

    def to(self, device: torch.device) -> "Table":
        """The same on another torch device, in place."""
        for name in ("breaks", "values", "start", "first", "look_up"):
            setattr(self, name, getattr(self, name).to(device))
        return self


def _where_nan(values: Tensor) -> Tensor:
    """Indices; numpy finds few of them in many several times faster."""
    if values.device.type != "cpu":
        return values.isnan().nonzero().squeeze(1)
    return torch.from_numpy(np.flatnonzero(np.isnan(values.numpy())))


# manufactured cells


def voltage(law: ThresholdLaw, conductance: Tensor) -> Tensor:
    """Threshold voltage [V] of a memristor [S] (NL-DPE, equation 7), within the data line's voltages."""
    found = torch.exp(law.exponent * (conductance * 1e6).clamp(min=1e-12).log() + law.offset) + law.base
    return found.clamp(law.lowest, law.highest)


def conductance(law: ThresholdLaw, volts: Tensor) -> Tensor:
    """Memristor [S] that makes a threshold voltage [V]."""
    return torch.exp(((volts - law.base).clamp(min=1e-30).log() - law.offset) / law.exponent) * 1e-6


def disturb(how: Thresholds, bounds: Tensor, domain: tuple[float, float], write: Tensor, read: Tensor) -> Tensor:
    """Bounds as manufactured cells hold them: to voltages, to conductances, noise, and back. Differentiable.

    Args:
        bounds: float64, finite, any shape.
        write, read: standard normal numbers of the same shape.
    """
    if how.mapping == "range":
        return _disturbed(how, bounds, domain, write, read)
    size = bounds.detach().abs()
    return bounds.sign() * _disturbed(how, bounds.abs(), (float(size.min()), float(size.max())), write, read)


def _disturbed(how: Thresholds, bounds: Tensor, span: tuple[float, float], write: Tensor, read: Tensor) -> Tensor:
    device: LogLinearDevice = how.device
    ends = voltage(how.law, torch.tensor([device.g_min, device.g_max], dtype=torch.float64))
    volts_per_input = float(ends[1] - ends[0]) / ((span[1] - span[0]) or 1.0)
    volts = float(ends[0]) + (bounds - span[0]) * volts_per_input
    cell = conductance(how.law, volts.clamp(float(ends[0]), float(ends[1]))).clamp(device.g_min, device.g_max)
    cell = cell + spread(device.programming, cell) * device.scale * write
    cell = (cell + spread(device.read, cell) * device.scale * read).clamp(min=0)
    return span[0] + (voltage(how.law, cell) - float(ends[0])) / volts_per_input


def manufacture(rows: Intervals, acam: Acam, *, seed: int, name: str, units: int = 1) -> Intervals:
    """One chip's draw of these rows, in `units` ACAMs with errors of their own.

    Stuck memristors disable their row; a good spare row of the same bit takes its interval over.
    """
    how = acam.thresholds
    if how is None:
        return rows
    spares = torch.arange(rows.quantiser.bits).repeat_interleave(acam.spare_rows)
    bit = torch.cat([rows.bit, spares])
    bounds = torch.cat([rows.low[:1], torch.full((1, len(spares)), torch.inf)], dim=1).expand(units, -1)
    others = torch.cat([rows.high[:1], torch.full((1, len(spares)), -torch.inf)], dim=1).expand(units, -1)
    count = bounds.numel()

    def normal(purpose: str) -> Tensor:
        drawn = torch.from_numpy(Stream(seed, name, purpose).normal(0, count))
        return drawn.to(torch.float64).mul_(2.0**-NORMAL_BITS).view(bounds.shape)

    if how.device.stuck is not None:
        share = how.device.stuck.off + how.device.stuck.on
        drawn = Stream(seed, name, "stuck").uniform(0, 2 * count)
        stuck = (torch.from_numpy(drawn) < share).view(units, -1, 2).any(dim=2)
        bounds, others = _replace_stuck(bounds.clone(), others.clone(), stuck, bit, len(rows.bit))
    sides = [
        _held(how, side, rows.domain, normal(f"{which} bound, programming"), normal(f"{which} bound, read"))
        for side, which in ((bounds, "low"), (others, "high"))
    ]
    return replace(rows, low=sides[0], high=sides[1], bit=bit)


def _held(how: Thresholds, bounds: Tensor, domain: tuple[float, float], write: Tensor, read: Tensor) -> Tensor:
    """Infinite bounds are cells that match everything: nothing disturbs them."""
    finite = bounds.isfinite()
    held = bounds.clone()
    if bool(finite.any()):
        held[finite] = _up(disturb(how, bounds[finite].to(torch.float64), domain, write[finite], read[finite]))
    return held


def _replace_stuck(low: Tensor, high: Tensor, stuck: Tensor, bit: Tensor, own: int) -> tuple[Tensor, Tensor]:
    """Disable rows with stuck cells and hand their intervals to good spare rows of the same bit, in order."""
    for index in range(int(bit.max()) + 1):
        rows, spares = ((bit == index).nonzero().squeeze(1) for _ in (0, 1))
        rows, spares = rows[rows < own], spares[spares >= own]
        nth = torch.where(stuck[:, rows], stuck[:, rows].cumsum(dim=1), 0)  # [unit, row]: the n-th to be replaced
        good = torch.where(stuck[:, spares], -1, (~stuck[:, spares]).cumsum(dim=1))  # [unit, spare]
        takes = (good[:, :, None] == nth[:, None, :]) & (nth[:, None, :] > 0)
        taken = takes.any(dim=2)
        source = rows[takes.to(torch.int64).argmax(dim=2)] if len(rows) and len(spares) else spares.expand(len(low), -1)
        low[:, spares] = torch.where(taken, low.gather(1, source), torch.inf)
        high[:, spares] = torch.where(taken, high.gather(1, source), -torch.inf)
    low[:, :own] = torch.where(stuck[:, :own], torch.inf, low[:, :own])
    high[:, :own] = torch.where(stuck[:, :own], -torch.inf, high[:, :own])
    return low, high
