"""The exact read of bit-serial inputs on a GPU: tensor cores multiply bit planes, the converter sits in the epilogue.

Bits and conductances are half floats. Conductances are integers up to 2048, sums up to 2^22, so float accumulation
is exact, and conversion is integer arithmetic: the same codes as everywhere.
"""

# triton is optional, and its kernels are launched by an index
# pyright: reportMissingImports=false, reportIndexIssue=false

from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

MOST = 2048  # largest magnitude of a conductance that a half float holds exactly, with all below it
_LARGEST_SUM = 2**22
_INT32 = 2**31 - 1


@triton.jit
def _read_planes(
    inputs,  # int8 or int16 [token, row]
    cells,  # float16 [slice, row, column]
    factor,  # int32 [slice, block, column]
    result,  # int32 [token, column]
    tokens,
    rows,
    columns,
    blocks,
    slices,
    multiplier,
    half,
    low,
    high,
    FIRST_SHIFT: tl.constexpr,  # of the product; half is added after it
    SHIFT: tl.constexpr,
    BITS: tl.constexpr,
    BLOCK: tl.constexpr,  # rows of a block
    BLOCK_TOKENS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,  # a power of two, at least BLOCK
):
    token = tl.program_id(0) * BLOCK_TOKENS + tl.arange(0, BLOCK_TOKENS)
    column = tl.program_id(1) * BLOCK_COLUMNS + tl.arange(0, BLOCK_COLUMNS)
    inside = tl.arange(0, BLOCK_ROWS)
    total = tl.zeros((BLOCK_TOKENS, BLOCK_COLUMNS), dtype=tl.int32)
    for read in range(blocks * slices):
        block, one = read // slices, read % slices
        row = block * BLOCK + inside
        valid = (inside < BLOCK) & (row < rows)
        where = token[:, None].to(tl.int64) * rows + row[None, :]
        word = tl.load(inputs + where, mask=(token[:, None] < tokens) & valid[None, :], other=0).to(tl.int32)
        where = (one * rows + row).to(tl.int64)[:, None] * columns + column[None, :]
        cell = tl.load(cells + where, mask=valid[:, None] & (column[None, :] < columns), other=0.0)
        place = tl.load(factor + (one * blocks + block) * columns + column, mask=column < columns, other=0)
        codes = tl.zeros((BLOCK_TOKENS, BLOCK_COLUMNS), dtype=tl.int32)
        for bit in tl.static_range(BITS):
            # 0x3C00 is 1.0: cheaper than a conversion
            plane = (((word >> bit) & 1) * 0x3C00).to(tl.int16).to(tl.float16, bitcast=True)
            sums = tl.dot(plane, cell, out_dtype=tl.float32)
            # adding 1.5 * 2^23 leaves the integer in the low bits of the float
            whole = (sums + 12582912.0).to(tl.int32, bitcast=True) - 0x4B400000
            code = (((whole * multiplier) >> FIRST_SHIFT) + half) >> SHIFT
            code = tl.minimum(tl.maximum(code, low), high)
            codes += code * (-(1 << bit) if bit == BITS - 1 else 1 << bit)
        total += codes * place[None, :]
    where = token[:, None].to(tl.int64) * columns + column[None, :]
    tl.store(result + where, total, mask=(token[:, None] < tokens) & (column[None, :] < columns))


def applies(conductance: Tensor, rows_per_block: int, multiplier: int, shift: int) -> bool:
    """Whether half floats hold the cells, and 32-bit integers the conversion."""
    held = int(conductance.abs().max()) <= MOST and rows_per_block <= 256
    blocks = conductance.to(torch.int32).abs().split(rows_per_block, dim=1)
    largest = max(int(block.sum(dim=1).max()) for block in blocks)
    half = 1 << shift >> 1 if shift < 17 else 0
    return held and largest < _LARGEST_SUM and largest * multiplier + half <= _INT32


@torch.library.custom_op("cimphony::read_planes", mutates_args=())
def read(inputs: Tensor, cells: Tensor, factor: Tensor, rows_per_block: int, converter: list[int], bits: int) -> Tensor:
    """Codes times place values, summed: int32 [token, column].

    Args:
        inputs: integers [token, row], two's complement of `bits` bits.
        cells: float16 [slice, row, column].
        factor: int32 [slice, block, column].
        converter: multiplier, shift, low, high.
    """
    slices, rows, columns = cells.shape
    tokens = inputs.shape[0]
    result = torch.empty(tokens, columns, dtype=torch.int32, device=inputs.device)
    multiplier, shift, low, high = converter
    first = 16 if shift >= 17 else 0  # half is a multiple of 2^16 then, so the low bits can go before it is added
    block_rows = max(16, triton.next_power_of_2(rows_per_block))
    block_tokens, block_columns = (64, 64) if block_rows <= 128 else (32, 64)
    grid = (triton.cdiv(tokens, block_tokens), triton.cdiv(columns, block_columns))
    _read_planes[grid](
        inputs.to(torch.int8 if bits <= 8 else torch.int16).contiguous(),
        cells,
        factor,
        result,
        tokens,
        rows,
        columns,
        factor.shape[1],
        slices,
        multiplier,
        (1 << shift >> 1) >> first,
        low,
        high,
        FIRST_SHIFT=first,
        SHIFT=shift - first,
        BITS=bits,
        BLOCK=rows_per_block,
        BLOCK_TOKENS=block_tokens,
        BLOCK_COLUMNS=block_columns,
        BLOCK_ROWS=block_rows,
        num_warps=4,  # pyright: ignore[reportCallIssue]
    )
    return result


@dataclass(frozen=True)
class Cells:
    """Cells as the kernel reads them."""

    conductance: Tensor  # float16 [slice, row, column]
    factor: Tensor  # int32 [slice, block, column]

    def read(self, inputs: Tensor, rows_per_block: int, converter: Any, bits: int) -> Tensor:
        """Codes times place values, summed: int32 [token, column]."""
        numbers = [converter.multiplier, converter.shift, converter.low, converter.high]
        return read(inputs, self.conductance, self.factor, rows_per_block, numbers, bits)


@read.register_fake
def _(inputs: Tensor, cells: Tensor, factor: Tensor, rows_per_block: int, converter: list[int], bits: int) -> Tensor:
    return inputs.new_empty((inputs.shape[0], cells.shape[2]), dtype=torch.int32)
