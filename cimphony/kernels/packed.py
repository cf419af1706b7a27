"""Cells laid out for the compiled reads: a byte and a few bits for each cell, nothing lost."""

import ctypes
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from cimphony import native

TILE = 32  # columns stored together; csrc/cimphony.h
INT16, UINT16, INT32 = 2**15 - 1, 2**16 - 1, 2**31 - 1


class _Converter(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int32) for name in ("rounding", "multiplier", "shift", "low", "high", "run")]


class _Cells(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int64) for name in ("rows", "columns", "slices", "rows_per_block")),
        *((name, ctypes.c_void_p) for name in ("panels", "places", "inverted")),
        *((name, ctypes.c_int32) for name in ("plane_count", "base", "only_levels")),
        ("converter", _Converter),
    ]


@dataclass(frozen=True)
class PackedCells:
    """Cells as the library reads them: a conductance is 256 * level + error, a level is base plus bit planes."""

    rows: int
    columns: int
    slices: int
    rows_per_block: int
    panels: Tensor  # int32, [tile, block, slice] one after the other; csrc/expand.h
    places: Tensor  # int32 [slice], place values with their signs
    inverted: Tensor  # int32 [slice, block, tile], a bit for each column of negated place value; empty: none is
    base: int  # lowest level
    top: int  # highest level
    sums: tuple[int, int]  # smallest and largest sum of any selection of rows of a block
    levels_only: bool  # no cell lies between levels, and bytes hold the sums

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        """What the library reads."""
        return self.panels, self.places, self.inverted

    @property
    def numbers(self) -> list[int]:
        """Everything else."""
        shape = (self.rows, self.columns, self.slices, self.rows_per_block)
        return [*shape, self.base, self.top, *self.sums, int(self.levels_only)]

    @classmethod
    def of(cls, panels: Tensor, places: Tensor, inverted: Tensor, numbers: list[int]) -> "PackedCells":
        """The cells of `tensors` and `numbers`."""
        rows, columns, slices, block, base, top, smallest, largest, only = numbers
        sums = (smallest, largest)
        return cls(rows, columns, slices, block, panels, places, inverted, base, top, sums, bool(only))

    @property
    def planes(self) -> int:
        """Bits of a level."""
        return max(1, (self.top - self.base).bit_length())

    @property
    def tiles(self) -> int:
        """Groups of TILE columns."""
        return -(-self.columns // TILE)

    @property
    def block_rows(self) -> list[int]:
        """Rows of every block."""
        return [min(self.rows_per_block, self.rows - low) for low in range(0, self.rows, self.rows_per_block)]

    @property
    def panel_numbers(self) -> int:
        """Numbers that a column tile takes in every slice."""
        errors = [0 if self.levels_only else -(-rows // 4) for rows in self.block_rows]
        return TILE * sum(
            -(-rows // 32) * self.planes + error for rows, error in zip(self.block_rows, errors, strict=True)
        )

    def struct(self, converter: tuple[int, int, int, int, int, int] = (0, 1, 0, 0, 0, 0)) -> Any:
        """What the library takes; the tensors must outlive it."""
        where = [one.data_ptr() if one.numel() else None for one in self.tensors]
        shape = (self.rows, self.columns, self.slices, self.rows_per_block)
        levels = (self.planes, self.base, int(self.levels_only))
        return ctypes.byref(_Cells(*shape, *where, *levels, _Converter(*converter)))

    def first(self, columns: int) -> "PackedCells":
        """The first columns alone, in the same memory."""
        if columns == self.columns:
            return self
        tiles = -(-columns // TILE)
        return replace(self, columns=columns, inverted=self.inverted[:, :, :tiles].contiguous())

    def unpack(self, columns: int) -> Tensor:
        """Conductances int16 [slice, row, column] of the first columns."""
        library = native.library()
        assert library is not None
        result = torch.empty(self.slices, self.rows, columns, dtype=torch.int16)
        cells, to = self.struct(), result.data_ptr()
        whole = replace(self, columns=columns)
        whole.over_tiles(lambda first, last: library.cim_unpack_cells(cells, columns, first, last, to))
        return result

    def over_tiles(self, work: Callable[[int, int], None], threads: int | None = None) -> None:
        """Call `work(first, last)` for ranges of tiles, side by side; the library releases Python's lock."""
        count = max(1, min(threads or torch.get_num_threads(), self.tiles))
        edges = [self.tiles * i // count for i in range(count + 1)]
        tasks = [native.pool(count).submit(work, *pair) for pair in pairwise(edges[1:])]
        work(edges[0], edges[1])
        for task in tasks:
            task.result()


def pack(conductance: Tensor, places: list[int], rows_per_block: int, inverted: Tensor | None = None) -> PackedCells:
    """Lay cells out for the compiled reads.

    Args:
        conductance: int16 [slice, row, column].
        places: place value of each slice, with its signs.
        inverted: bool [slice, block, column], where the place value is negated; None: nowhere.
    """
    library = native.library()
    assert library is not None
    conductance = conductance.contiguous()
    slices, rows, columns = conductance.shape
    bounds = torch.empty(5, dtype=torch.int32)
    library.cim_bounds(conductance.data_ptr(), slices, rows, columns, rows_per_block, bounds.data_ptr())
    smallest, largest, bottom, top, between = bounds.tolist()
    packed = PackedCells(
        rows,
        columns,
        slices,
        rows_per_block,
        torch.empty(0),
        torch.tensor(places, dtype=torch.int32),
        torch.empty(0, 0, 0, dtype=torch.int32) if inverted is None else _bits(inverted),
        bottom,
        top,
        (smallest, largest),
        not between and bottom >= 0 and largest <= UINT16,
    )
    packed = replace(packed, panels=torch.zeros(packed.tiles * slices, packed.panel_numbers, dtype=torch.int32))
    cells = packed.struct()
    packed.over_tiles(lambda first, last: library.cim_pack_cells(conductance.data_ptr(), cells, first, last))
    return packed


def _bits(inverted: Tensor) -> Tensor:
    """A bit for each column [slice, block, column] of a tile."""
    tiles = F.pad(inverted, (0, -inverted.shape[2] % TILE)).unflatten(2, (-1, TILE))
    return (tiles.to(torch.int64) << torch.arange(TILE)).sum(dim=3).to(torch.int32)
