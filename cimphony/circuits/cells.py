"""Programmed cells: what a layer's columns in one cell mode hold after writing and ageing."""

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor

from cimphony.chip import CrossbarUnit, Mode, Wires
from cimphony.circuits.converter import Converter, converter
from cimphony.circuits.encoding import encode, round_half_up
from cimphony.circuits.wires import seen
from cimphony.devices import hold
from cimphony.mapping import Slice, weight_slices, word_gain

_AT_ONCE = 1 << 16  # cells written at a time
READ_SD_BITS = 2  # the variance of a read is kept in units of (grid step / 4)^2


@dataclass(frozen=True)
class Cells:
    """The cells of output columns that share a mode.

    Conductances are integers on a grid of 2^-fraction_bits levels, so every sum of them is exact.
    """

    mode: Mode
    slices: tuple[Slice, ...]
    fraction_bits: int
    held: Tensor | Callable[[], Tensor]  # conductances, int16 [slice, row, column], or what makes them
    shape: tuple[int, int, int]  # slices, rows, columns
    read_variance: Tensor | None  # int32 or int16 [slice, row, column], units of (grid step / 4)^2; None: quiet
    flipped: Tensor | None  # bool [slice, block, column]: stored inverted; None: none is
    converter: Converter
    rows_per_block: int
    stream: str  # name of the layer's random numbers
    gain: int = 1  # of all place values; see `mapping.word_gain`
    # layouts that the fast reads make of these cells
    memo: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def conductance(self) -> Tensor:
        """int16 [slice, row, column]."""
        return self.held if isinstance(self.held, Tensor) else self.held()

    @property
    def device(self) -> torch.device:
        """Where the conductances are."""
        return self.held.device if isinstance(self.held, Tensor) else torch.device("cpu")

    @property
    def blocks(self) -> list[slice]:
        """Row ranges that are summed before conversion."""
        rows, step = self.shape[1], self.rows_per_block
        return [slice(low, min(low + step, rows)) for low in range(0, rows, step)]

    def to(self, device: Any) -> "Cells":
        """The same cells on another torch device."""
        if torch.device(device) == self.device:
            return self
        moved = {one.name: getattr(self, one.name) for one in fields(self)} | {"held": self.conductance}
        return replace(self, **{name: value.to(device) for name, value in moved.items() if isinstance(value, Tensor)})

    def _slice_levels(self, s: int, conductance: Tensor) -> Tensor:
        """Levels [row, column] (float64) of a slice with inverted columns turned back."""
        levels = conductance[s].to(torch.float64) * 2.0**-self.fraction_bits
        if self.flipped is None:
            return levels
        flipped = _by_row(self.flipped[s], self.rows_per_block, levels.shape[0])
        return torch.where(flipped, self.slices[s].top - levels, levels)

    def weights(self) -> Tensor:
        """Effective weight integers [row, column] (float64): what an ideal converter would read."""
        conductance = self.conductance
        total = torch.zeros(self.shape[1:], dtype=torch.float64, device=conductance.device)
        for s, one in enumerate(self.slices):
            total.add_(self._slice_levels(s, conductance) - one.offset, alpha=one.place * (one.polarity or 1))
        return total if self.gain == 1 else total / self.gain

    def weight_variance(self) -> Tensor | None:
        """Variance [row, column] (float64) that one read adds to an effective weight integer."""
        if self.read_variance is None:
            return None
        scale = 2.0 ** -(2 * (self.fraction_bits + READ_SD_BITS)) / self.gain**2
        places = torch.tensor([float(one.place) ** 2 * scale for one in self.slices], dtype=torch.float64)
        return (self.read_variance * places.to(self.read_variance.device).view(-1, 1, 1)).sum(dim=0)


def fraction_bits(cell_bits: int) -> int:
    """1/256 of a level where a cell holds up to 6 bits; coarser above, so that 16 bits hold twice the range."""
    return min(8, 14 - cell_bits)


def write(
    unit: CrossbarUnit,
    mode: Mode,
    integers: Tensor,
    *,
    seed: int,
    name: str,
    seconds: float,
    largest_sum: float | None,
) -> Cells:
    """Encode integers [row, column], program them into cells and age them.

    Args:
        seed, name: manufactured chip and layer; they decide every random number.
        largest_sum: from calibration, in levels, for converters of range `calibrated`.
    """
    slices = weight_slices(unit.encoding, unit.cell.bits[mode])
    bits = fraction_bits(unit.cell.bits[mode])
    rows, columns = integers.shape
    # a cell's numbers depend on its own index alone; a few row blocks at a time stay in cache
    step = max(1, _AT_ONCE // max(1, unit.rows * columns)) * unit.rows
    parts = [
        _write_rows(
            unit, mode, slices, integers, slice(low, min(low + step, rows)), seed=seed, name=name, seconds=seconds
        )
        for low in range(0, rows, step)
    ]
    conductance, variance, flips = (
        None if held[0] is None else torch.cat(held, dim=1) for held in zip(*parts, strict=True)
    )
    assert conductance is not None
    return Cells(
        mode,
        slices,
        bits,
        conductance,
        (len(slices), rows, columns),
        _small(variance),
        flips,
        converter(unit, mode, bits, largest_sum),
        unit.rows,
        f"{name}/{mode}",
        word_gain(unit.encoding),
    )


def _write_rows(
    unit: CrossbarUnit, mode: Mode, slices: tuple[Slice, ...], integers: Tensor, rows: slice, **chip: Any
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Conductances, variances and inverted columns of whole row blocks."""
    bits, columns = fraction_bits(unit.cell.bits[mode]), integers.shape[1]
    conductance, variance, flips = [], [], []
    error = torch.zeros(())  # of the slice before, when it was written, in levels
    for index, (one, levels) in enumerate(zip(slices, encode(integers[rows], slices, unit.encoding), strict=True)):
        if one.residual:
            levels = (error * unit.encoding.residual_gain).clamp(-one.top, one.top)
        flipped = _flips(levels, one.top, unit.rows) if unit.encoding.flip else None
        if flipped is not None:
            levels = torch.where(_by_row(flipped, unit.rows, levels.shape[0]), one.top - levels, levels)
            flips.append(flipped)
        start = index * integers.numel() + rows.start * columns
        seed, name, seconds = chip["seed"], f"{chip['name']}/{mode}", chip["seconds"]
        state, sd = _hold(unit, mode, levels, one, unit.wires, seed=seed, name=name, start=start, seconds=seconds)
        conductance.append(_on_grid(state, bits))
        if index + 1 < len(slices) and slices[index + 1].residual:
            written = {"seed": seed, "name": name, "start": start, "seconds": 0.0}
            # cells are verified one by one: what wires take is no error of writing
            fresh = _hold(unit, mode, levels, one, None, **written)[0] if seconds or unit.wires else state
            error = _on_grid(fresh, bits) * 2.0**-bits - levels
        if sd is not None:
            variance.append(round_half_up((sd * 2.0 ** (bits + READ_SD_BITS)) ** 2).to(torch.int32))
    variances = torch.stack(variance) if variance else None
    return torch.stack(conductance), variances, torch.stack(flips) if flips else None


def _small(variance: Tensor | None) -> Tensor | None:
    """One number in memory where every cell has the same variance, else two bytes a cell where they hold it."""
    if variance is None or not variance.numel():
        return variance
    if bool((variance == variance.view(-1)[0]).all()):
        return variance.view(-1)[0].clone().expand(variance.shape)
    return variance.to(torch.int16) if int(variance.max()) < 2**15 else variance


def _on_grid(levels: Tensor, bits: int) -> Tensor:
    return round_half_up(levels * 2.0**bits).clamp(-32768, 32767).to(torch.int16)


def continuous(
    unit: CrossbarUnit, mode: Mode, weights: Tensor, *, seed: int, name: str, seconds: float
) -> tuple[Tensor, Tensor | None]:
    """Weights [row, column] in -1 to 1 kept in cells without levels: no slices, no grid.

    Returns the effective weights and the variance that one read adds to each (None: quiet).
    """
    (one,) = weight_slices(unit.encoding, unit.cell.bits[mode])
    chip = {"seed": seed, "name": f"{name}/{mode}", "start": 0, "seconds": seconds}
    state, sd = _hold(unit, mode, weights * one.top, one, unit.wires, **chip)
    return state / one.top, None if sd is None else (sd / one.top) ** 2


def _hold(
    unit: CrossbarUnit, mode: Mode, levels: Tensor, one: Slice, wires: Wires | None, *, name: str, **chip: Any
) -> tuple[Tensor, Tensor | None]:
    """Levels as the converter sees them and the spread of a read; a differential pair is two cells, subtracted."""
    device = unit.cell.device[mode]

    def side(targets: Tensor, name: str) -> tuple[Tensor, Tensor | None]:
        state = hold(device, targets, one.top, name=name, **chip)
        if wires is None:
            return state.levels, state.read_sd
        share = seen(wires, device, state.levels, one.top, unit.rows, unit.columns)
        return state.levels * share, None if state.read_sd is None else state.read_sd * share

    if not one.pair:
        return side(levels, name)
    (plus, sd), (minus, other) = (
        side((sign * levels).clamp(min=0), f"{name}{mark}") for sign, mark in ((1, "+"), (-1, "-"))
    )
    return plus - minus, None if sd is None or other is None else torch.sqrt(sd**2 + other**2)


def _flips(levels: Tensor, top: int, rows: int) -> Tensor:
    """Which columns of each row block [block, column] have a smaller largest sum when stored inverted."""
    blocks = [levels[low : low + rows] for low in range(0, levels.shape[0], rows)]
    return torch.stack([block.sum(dim=0) * 2 > top * block.shape[0] for block in blocks])


def _by_row(flipped: Tensor, rows: int, total: int) -> Tensor:
    return flipped.repeat_interleave(rows, dim=0)[:total]
