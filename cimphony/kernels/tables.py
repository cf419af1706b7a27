"""The exact read of bit-serial inputs in the compiled library: table look-ups in 16-bit integers.

It computes the sum over blocks, input bits and slices of
`factor * place * clamp((sum * multiplier + half) >> shift, low, high)`, exactly.
"""

import ctypes

import torch
from torch import Tensor

from cimphony import native
from cimphony.kernels.packed import INT16, INT32, UINT16, PackedCells

_ONE_BY_ONE, _ONE_BY_ONE_LEVELS = 4, 8  # tokens that are read without tables
_FEW_TOKENS = 24
_TALL = 160  # rows of a block
_LARGEST_GROUP = 6

Code = tuple[int, int, int, int, int, int]  # rounding, multiplier, shift, low, high, run: csrc/cimphony.h
_LONG = 4  # and above: roundings of sums of 32 bits


class _Chunk(ctypes.Structure):
    _fields_ = [
        ("words", ctypes.c_void_p),
        *((name, ctypes.c_int32) for name in ("bits", "place", "negative_top", "unused")),
    ]


def conversion(packed: PackedCells, multiplier: int, shift: int, low: int | None, high: int | None) -> Code | None:
    """The conversion of these cells' sums in 16 bits, or in 32 from runs of rows; None where neither will do."""
    if low is None or high is None or max(abs(low), abs(high)) > INT16:
        return None
    if multiplier == 1 << 15:
        multiplier, shift = 1, shift - 15
    power = multiplier == 1 and 0 <= shift <= 15
    if not power and (multiplier == 1 or not 17 <= shift <= 31):
        return None
    smallest, largest = packed.sums[0], packed.sums[1] + ((1 << shift >> 1) if power else 0)
    if smallest >= 0 and largest <= UINT16:
        return 0 if power else 2, multiplier, shift, low, high, 0
    if smallest >= -INT16 - 1 and largest <= INT16:
        return 1 if power else 3, multiplier, shift, low, high, 0
    cell = 256 * max(packed.top, -packed.base) + 128  # largest magnitude
    run = (UINT16 if smallest >= 0 else INT16) // cell
    if not power or run < _LARGEST_GROUP or max(-smallest, largest) > INT32:
        return None
    return _LONG + int(smallest < 0), multiplier, shift, low, high, run


def read(
    inputs: Tensor,
    packed: PackedCells,
    code: Code,
    bits: int,
    *,
    isa: native.InstructionSet | None = None,
    threads: int | None = None,
) -> Tensor:
    """Codes times place values, summed: int32 [token, column].

    Args:
        inputs: integers [token, row], int64, two's complement of `bits` bits.
        code: from `conversion`.
        isa: the build to use; None is the fastest this machine runs.
        threads: at most this many; None is as many as torch uses.
    """
    library = native.library(isa)
    assert library is not None
    inputs, tokens = inputs.contiguous(), inputs.shape[0]
    plan = _chunks(bits, max(abs(code[3]), abs(code[4])))
    chunks = (_Chunk * len(plan))(*((None, count, 1 << low, int(low + count == bits), 0) for low, count in plan))
    result = torch.empty(tokens, packed.columns, dtype=torch.int32)
    cells, to = packed.struct(code), result.data_ptr()

    def work_one_by_one(first: int, last: int) -> None:
        library.cim_read_token(cells, inputs.data_ptr(), tokens, chunks, len(plan), first, last, to)

    def work(first: int, last: int) -> None:
        library.cim_read_tables(cells, chunks, len(plan), group, entry, tokens, first, last, to)

    if tokens <= (_ONE_BY_ONE_LEVELS if packed.levels_only else _ONE_BY_ONE):
        packed.over_tiles(work_one_by_one, threads)
        return result
    wide = tokens <= _FEW_TOKENS and not packed.levels_only and code[0] < _LONG
    group, entry = _rows_of_a_table(tokens, packed.rows_per_block), library.cim_widest_entry() if wide else 32
    words = torch.empty(len(plan), tokens * sum(-(-rows // group) for rows in packed.block_rows), dtype=torch.int64)
    for index, (low, count) in enumerate(plan):
        chunks[index].words = where = words[index].data_ptr()
        shape = (tokens, packed.rows, packed.rows_per_block, group, entry)
        library.cim_pack_inputs(inputs.data_ptr(), *shape, low, count, where)
    packed.over_tiles(work, threads)
    return result


def _rows_of_a_table(tokens: int, block: int) -> int:
    """Larger tables take longer to make and save more look-ups in each token; all of a block's should fit the cache."""
    return 4 if tokens <= _FEW_TOKENS or block > _TALL else _LARGEST_GROUP


def _chunks(bits: int, largest_code: int) -> list[tuple[int, int]]:
    """(lowest bit, bits) of the parts of an input whose codes, weighed and summed, fit 16 bits."""
    plan, left = [], bits
    while left:
        # the top part is a two's complement, whose largest magnitude is that of its sign bit
        weight = [1 << (n - 1) if left == bits else (1 << n) - 1 for n in range(1, 9)]
        count = max(n for n in range(1, min(8, left) + 1) if n == 1 or weight[n - 1] * largest_code <= INT16)
        plan.append((left - count, count))
        left -= count
    return plan
