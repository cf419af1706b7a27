"""The exact read by multiplying and adding in the compiled library: multi-bit inputs, large sums, noisy reads."""

import ctypes
from dataclasses import dataclass

import torch
from torch import Tensor

from cimphony import native
from cimphony.kernels.packed import INT16, INT32, PackedCells
from cimphony.random import normal_table

_VARIANCE = 2**30  # of one cell: two parts of 15 bits


@dataclass(frozen=True)
class ReadNoise:
    """Fresh noise on every sum: round_half_up(sqrt(variance of the selected cells) * normal * scale)."""

    variance: Tensor | int  # int32 or int16 [slice, row, column], or one number for all cells
    keys: Tensor  # int32 [block, digit, slice, 2], of the streams of normal numbers
    first_token: int
    scale: float


class _Digits(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("values", "places")),
        *((name, ctypes.c_int64) for name in ("tokens", "count", "padded_rows")),
        *((name, ctypes.c_double) for name in ("gain", "low", "high")),
    ]


class _Noise(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("variance", "squares", "sums", "keys", "value", "difference")),
        ("first_token", ctypes.c_int64),
        ("scale", ctypes.c_double),
    ]


def applies(packed: PackedCells, top: int, variance: Tensor | int | None) -> bool:
    """Whether 32 bits hold every sum; `top` is the largest magnitude of a digit."""
    if max(-packed.sums[0], packed.sums[1]) * 2 * top > INT32 or top > INT16:
        return False
    if not isinstance(variance, Tensor):
        return True
    return int(variance.max()) < _VARIANCE and packed.rows_per_block * top**2 << 15 <= INT32 and top**2 <= INT16


def read(
    digits: Tensor,
    places: tuple[int, ...],
    packed: PackedCells,
    *,
    gain: float,
    low: int | None,
    high: int | None,
    noise: ReadNoise | None = None,
    isa: native.InstructionSet | None = None,
    threads: int | None = None,
) -> Tensor:
    """Codes times place values, summed: int32 [token, column].

    Args:
        digits: [token, digit, row], int16.
        places: place value of each digit.
        gain, low, high: code = clamp(round_half_up(sum * gain), low, high).
        isa, threads: as in `tables.read`.
    """
    library = native.library(isa)
    assert library is not None
    padded = _fill_up(digits, packed)
    place = torch.tensor(places, dtype=torch.int32)
    ends = (-float("inf") if low is None else low, float("inf") if high is None else high)
    given = _Digits(padded.data_ptr(), place.data_ptr(), *padded.shape, gain, *ends)
    added, alive = _noise(digits, padded, packed, noise)
    result = torch.empty(digits.shape[0], packed.columns, dtype=torch.int32)
    cells, to = packed.struct(), result.data_ptr()
    pointers = (ctypes.byref(given), None if added is None else ctypes.byref(added))
    packed.over_tiles(lambda first, last: library.cim_read_direct(cells, *pointers, first, last, to), threads)
    del alive
    return result


def _fill_up(digits: Tensor, packed: PackedCells) -> Tensor:
    """Every block with an even number of rows, int16."""
    blocks = digits.split(packed.rows_per_block, dim=2)
    return torch.cat([torch.nn.functional.pad(one, (0, one.shape[2] % 2)) for one in blocks], dim=2).contiguous()


def _noise(
    digits: Tensor, padded: Tensor, packed: PackedCells, noise: ReadNoise | None
) -> tuple[_Noise | None, tuple[object, ...]]:
    """What the library takes, and what must stay alive meanwhile."""
    if noise is None:
        return None, ()
    value, difference = normal_table()
    keys = noise.keys.contiguous()
    pointers = (keys.data_ptr(), value.ctypes.data, difference.ctypes.data, noise.first_token, noise.scale)
    if isinstance(noise.variance, int):
        blocks = digits.to(torch.float64).square().split(packed.rows_per_block, dim=2)
        sums = torch.stack([one.sum(dim=2) * noise.variance for one in blocks])
        return _Noise(None, None, sums.data_ptr(), *pointers), (sums, keys)
    variance, squares = noise.variance.to(torch.int32).contiguous(), padded * padded
    return _Noise(variance.data_ptr(), squares.data_ptr(), None, *pointers), (variance, squares, keys)
