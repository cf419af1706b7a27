"""The exact read of bit-serial inputs in the compiled library: table look-ups in 16-bit integers.

Works on arrays and plain numbers; knows nothing of layers or chips. What it computes is the sum over blocks, input
bits and slices of `factor * place * clamp((sum * multiplier + half) >> shift, low, high)`, exactly.
"""

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from cimphony import native

TILE = 32  # columns stored together; csrc/cimphony.h
_INT16, _UINT16, _INT32 = 2**15 - 1, 2**16 - 1, 2**31 - 1


class _Converter(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int32) for name in ("rounding", "multiplier", "shift", "low", "high")]


class _Cells(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int64) for name in ("rows", "columns", "slices", "rows_per_block")),
        *((name, ctypes.c_void_p) for name in ("rest", "planes", "factor")),
        ("plane_count", ctypes.c_int32),
        ("base", ctypes.c_int32),
        ("only_levels", ctypes.c_int32),
        ("converter", _Converter),
    ]


class _Chunk(ctypes.Structure):
    _fields_ = [
        ("words", ctypes.c_void_p),
        *((name, ctypes.c_int32) for name in ("bits", "place", "negative_top", "unused")),
    ]


@dataclass(frozen=True)
class PackedCells:
    """Cells as the library reads them: a byte and a few bit planes for each, nothing lost."""

    rows: int
    columns: int
    slices: int
    rows_per_block: int
    rest: Tensor  # int8 [tile, block, slice, row, TILE]
    planes: Tensor  # int32 [tile, block, slice, row, plane]
    factor: Tensor  # int32 [slice, block, padded column]
    base: int
    only_levels: bool  # no cell lies between levels, and bytes hold the sums
    converter: tuple[int, int, int, int, int]  # rounding, multiplier, shift, low, high

    @property
    def tiles(self) -> int:
        """Groups of TILE columns."""
        return -(-self.columns // TILE)

    @property
    def largest_code(self) -> int:
        """Largest magnitude of a code."""
        return max(abs(self.converter[3]), abs(self.converter[4]))

    @property
    def bytes(self) -> int:
        """Memory of the cells."""
        return sum(one.numel() * one.element_size() for one in (self.rest, self.planes, self.factor))


def pack(
    conductance: Tensor,
    factor: Tensor,
    rows_per_block: int,
    *,
    multiplier: int,
    shift: int,
    low: int,
    high: int,
) -> PackedCells | None:
    """Lay cells out for `read`; None where their sums or codes do not fit 16 bits, or nothing is compiled.

    Args:
        conductance: int16 [slice, row, column].
        factor: int32 [slice, block, column], place value of the slice with its signs.
        multiplier, shift, low, high: the converter.
    """
    library = native.library()
    if library is None:
        return None
    conductance = conductance.contiguous()
    slices, rows, columns = conductance.shape
    bounds = torch.empty(5, dtype=torch.int32)
    library.cim_bounds(conductance.data_ptr(), slices, rows, columns, rows_per_block, bounds.data_ptr())
    smallest, largest, bottom, top, between = bounds.tolist()
    rounding = _rounding(multiplier, shift, smallest, largest)
    if rounding is None or max(abs(low), abs(high)) > _INT16:
        return None
    plane_count = max(1, (top - bottom).bit_length())
    padded = -(-columns // TILE) * TILE
    packed = PackedCells(
        rows,
        columns,
        slices,
        rows_per_block,
        torch.empty(padded // TILE, slices * rows, TILE, dtype=torch.int8),
        torch.empty(padded // TILE, slices * rows, plane_count, dtype=torch.int32),
        torch.nn.functional.pad(factor.to(torch.int32), (0, padded - columns)).contiguous(),
        bottom,
        not between and bottom >= 0 and largest < 1 << 16,
        (*rounding, low, high),
    )
    cells = _struct(packed)
    _over_tiles(packed, lambda first, last: library.cim_pack_cells(conductance.data_ptr(), cells, first, last))
    return packed


def read(
    inputs: Tensor,
    packed: PackedCells,
    bits: int,
    *,
    isa: native.InstructionSet | None = None,
    threads: int | None = None,
) -> Tensor:
    """Codes times place values, summed: int32 [token, column].

    Args:
        inputs: integers [token, row], int64, two's complement of `bits` bits.
        isa: the build to use; None is the fastest this machine runs.
        threads: at most this many; None is as many as torch uses.
    """
    library = native.library(isa)
    assert library is not None
    inputs = inputs.contiguous()
    tokens = inputs.shape[0]
    blocks = [min(packed.rows_per_block, packed.rows - low) for low in range(0, packed.rows, packed.rows_per_block)]
    group = _rows_of_a_table(tokens)
    groups = sum(-(-rows // group) for rows in blocks)
    plan = _chunks(bits, packed.largest_code)
    words = torch.empty(len(plan), tokens * groups, dtype=torch.int64)
    chunks = (_Chunk * len(plan))()
    for index, (low, count) in enumerate(plan):
        library.cim_pack_inputs(
            inputs.data_ptr(), tokens, packed.rows, packed.rows_per_block, group, low, count, words[index].data_ptr()
        )
        chunks[index] = _Chunk(words[index].data_ptr(), count, 1 << low, int(low + count == bits), 0)
    result = torch.empty(tokens, packed.columns, dtype=torch.int32)
    cells, to = _struct(packed), result.data_ptr()
    _over_tiles(
        packed, lambda first, last: library.cim_read_tables(cells, chunks, len(plan), group, tokens, first, last, to), threads
    )
    return result


def _rows_of_a_table(tokens: int) -> int:
    """Larger tables take longer to make and save more look-ups in each token."""
    return 3 if tokens <= 2 else 4 if tokens <= 24 else 6


def fits(packed_code: int, places: int, blocks: int, bits: int) -> bool:
    """Whether 32 bits hold the total of `blocks` blocks; `places` is the sum of the slices' place values."""
    return blocks * places * packed_code << (bits - 1) <= _INT32


def _rounding(multiplier: int, shift: int, smallest: int, largest: int) -> tuple[int, int, int] | None:
    """Kind of conversion that holds every sum in 16 bits, with multiplier and shift; see csrc/cimphony.h."""
    if multiplier == 1 << 15:
        multiplier, shift = 1, shift - 15
    if multiplier == 1 and 0 <= shift <= 15:
        half = (1 << shift) >> 1
        if smallest >= 0 and largest + half <= _UINT16:
            return 0, 1, shift
        return (1, 1, shift) if smallest >= -_INT16 - 1 and largest + half <= _INT16 else None
    if multiplier == 1 or not 17 <= shift <= 31:
        return None
    if smallest >= 0 and largest <= _UINT16:
        return 2, multiplier, shift
    return (3, multiplier, shift) if smallest >= -_INT16 - 1 and largest <= _INT16 else None


def _chunks(bits: int, largest_code: int) -> list[tuple[int, int]]:
    """(lowest bit, bits) of the parts of an input whose codes, weighed and summed, fit 16 bits."""
    plan, left = [], bits
    while left:
        # the top part is a two's complement, whose largest magnitude is that of its sign bit
        weight = [1 << (n - 1) if left == bits else (1 << n) - 1 for n in range(1, 9)]
        count = max(n for n in range(1, min(8, left) + 1) if n == 1 or weight[n - 1] * largest_code <= _INT16)
        plan.append((left - count, count))
        left -= count
    return plan


def _struct(packed: PackedCells) -> Any:
    rest, planes, factor = packed.rest, packed.planes, packed.factor
    return ctypes.byref(
        _Cells(
            packed.rows,
            packed.columns,
            packed.slices,
            packed.rows_per_block,
            rest.data_ptr(),
            planes.data_ptr(),
            factor.data_ptr(),
            planes.shape[-1],
            packed.base,
            packed.only_levels,
            _Converter(*packed.converter),
        )
    )


def _over_tiles(packed: PackedCells, work: Callable[[int, int], None], threads: int | None = None) -> None:
    """Split tiles over threads; the library releases Python's lock."""
    count = min(threads or torch.get_num_threads(), packed.tiles)
    if count == 1:
        work(0, packed.tiles)
        return
    edges = [packed.tiles * i // count for i in range(count + 1)]
    tasks = [native.pool(count).submit(work, *pair) for pair in pairwise(edges[1:])]
    work(edges[0], edges[1])
    for task in tasks:
        task.result()
