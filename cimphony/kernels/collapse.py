"""The read that is one integer product, where it provably is: no converter can saturate or round.

A column qualifies if its cells' errors cannot add up to half a level in any block, whatever the inputs, and its
levels cannot add up beyond the converter's range. Then every code is the noise-free sum, and shift-and-add of the
codes is the product of the integers.
"""

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

_LONGEST = 2**17 - 1  # rows whose products of bytes 32 bits can add


@dataclass(frozen=True)
class Product:
    """Integer weights of a collapsed read, as bytes where they fit."""

    weight: Tensor  # int8 [row, column], or int32
    offset: int  # added to every weight


def provable(
    conductance: Tensor, rows_per_block: int, fraction_bits: int, top: int, low: int, high: int, signed: bool
) -> Tensor:
    """Columns (bool) whose converters, of one level a code, cannot saturate or round.

    Args:
        conductance: int16 [slice, row, column], 2^fraction_bits to a level.
        top, signed: largest magnitude of an input digit, and whether it can be negative.
    """
    proven = torch.ones(conductance.shape[2], dtype=torch.bool)
    half = 1 << (fraction_bits - 1)
    for block in conductance.split(rows_per_block, dim=1):
        for cells in block:
            levels = _levels(cells, fraction_bits)
            below, above = _reach(cells.to(torch.int32) - (levels << fraction_bits), top, signed)
            proven &= (below >= -half) & (above < half)
            below, above = _reach(levels, top, signed)
            proven &= (below >= low) & (above <= high)
    return proven


def fold(conductance: Tensor, factor: Tensor, rows_per_block: int, fraction_bits: int) -> Product:
    """The integer weights that noise-free cells stand for; `factor` [slice, block, column] weighs the slices."""
    total = torch.zeros(conductance.shape[1:], dtype=torch.int32)
    for cells, places in zip(conductance, factor, strict=True):
        by_row = places.repeat_interleave(rows_per_block, dim=0)[: cells.shape[0]]
        total += _levels(cells, fraction_bits) * by_row
    low, high = int(total.min()), int(total.max())
    if high - low > 255 or total.shape[0] > _LONGEST or not _bytes_are_exact():
        return Product(total, 0)
    offset = low + 128 if low < -128 or high > 127 else 0
    return Product((total - offset).to(torch.int8).t().contiguous().t(), offset)


def multiply(inputs: Tensor, product: Product, bits: int) -> Tensor:
    """The product [token, column], with integers [token, row] (int64) of `bits` bits with their sign."""
    if product.weight.dtype == torch.int32 or bits > 8:
        total = (inputs.to(torch.float64) @ product.weight.to(torch.float64)).to(torch.int64)
    else:
        total = torch.ops.aten._int_mm.default(inputs.to(torch.int8), product.weight)
    return total + inputs.sum(dim=1, keepdim=True) * product.offset if product.offset else total


def _levels(cells: Tensor, fraction_bits: int) -> Tensor:
    return (cells.to(torch.int32) + (1 << fraction_bits >> 1)) >> fraction_bits


def _reach(values: Tensor, top: int, signed: bool) -> tuple[Tensor, Tensor]:
    """Smallest and largest sum of a column for any digits."""
    above = values.clamp(min=0).sum(dim=0) * top
    below = values.clamp(max=0).sum(dim=0) * top
    return (below - above, above - below) if signed else (below, above)


@cache
def _bytes_are_exact() -> bool:
    """Some processors saturate sums of two byte products; there the product is taken in doubles."""
    ones = torch.full((16, 64), 127, dtype=torch.int8)
    return bool((torch.ops.aten._int_mm.default(ones, ones.t()) == 64 * 127 * 127).all())
