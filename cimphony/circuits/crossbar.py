"""The crossbar read: the definition of correct. Plain torch, one loop per index, no tricks.

A read takes one block of rows, one slice of the inputs and one slice of the weights: the cells of a column add
their conductances, the converter turns the sum into a code, shift-and-add sums the codes with their place values.
All of it is integer arithmetic, so any order, tiling, thread count or machine gives the same bits.
"""

import torch
from torch import Tensor

from cimphony.chip import InputCoding
from cimphony.circuits.cells import READ_SD_BITS, Cells
from cimphony.circuits.converter import input_digits
from cimphony.mapping import Slice, input_places
from cimphony.random import NORMAL_BITS, Stream


def reference_read(inputs: Tensor, cells: Cells, coding: InputCoding, *, seed: int = 0, first_token: int = 0) -> Tensor:
    """Sum of codes times place values.

    Args:
        inputs: integers [token, row], int64.
        seed, first_token: the chip and the number of tokens it read before; they decide the read noise, so that
            a batch split in two gives the same bits.

    Returns: int64 [token, column], in steps of the converter: multiply by `cells.converter.step *
        2^-cells.fraction_bits` for weight units, then add `corrections`.
    """
    conductance = cells.conductance
    total = torch.zeros(inputs.shape[0], cells.shape[2], dtype=torch.int64, device=inputs.device)
    for b, rows in enumerate(cells.blocks):
        for j, place in enumerate(input_places(coding)):
            digits = input_digits(inputs[:, rows], coding, j)
            for s, one in enumerate(cells.slices):
                sums = _product(digits, conductance[s, rows])
                if cells.read_variance is not None:
                    sums = sums + _read_noise(digits, cells, coding, b, j, s, seed, first_token)
                codes = cells.converter.convert(sums)
                total += codes * (_sign(cells, one, s, b) * place)
    return total


def corrections(inputs: Tensor, cells: Cells, coding: InputCoding) -> Tensor | None:
    """What is subtracted digitally, exactly: offsets of the encoding and inverted columns.

    Returns: int64 [token, column] in weight units, to be added to the read; None where there is nothing to correct.
    """
    offset = round(sum(one.place * (one.polarity or 1) * one.offset for one in cells.slices))
    if offset == 0 and cells.flipped is None:
        return None
    total = (inputs.sum(dim=1, keepdim=True) * -offset).expand(-1, cells.shape[2]).clone()
    if cells.flipped is not None:
        for b, rows in enumerate(cells.blocks):
            block_sum = inputs[:, rows].sum(dim=1, keepdim=True)
            for s, one in enumerate(cells.slices):
                total += block_sum * (cells.flipped[s, b].to(torch.int64) * one.top * one.place * (one.polarity or 1))
    return total


def _sign(cells: Cells, one: Slice, s: int, b: int) -> Tensor | int:
    """Place value of a slice with its signs: polarity of the pair, inverted columns."""
    value = one.place * (one.polarity or 1)
    if cells.flipped is None:
        return value
    return torch.where(cells.flipped[s, b], -value, value)


def _product(digits: Tensor, conductance: Tensor) -> Tensor:
    """[token, row] x [row, column] -> int64. Floats hold the sums exactly (below 2^53), and have a fast product."""
    return (digits.to(torch.float64) @ conductance.to(torch.float64)).to(torch.int64)


def _read_noise(
    digits: Tensor, cells: Cells, coding: InputCoding, b: int, j: int, s: int, seed: int, first_token: int
) -> Tensor:
    """One normal number for each read of a column, with the variance of the cells that the inputs select."""
    assert cells.read_variance is not None
    tokens, columns = digits.shape[0], cells.shape[2]
    reads = (len(cells.blocks), len(input_places(coding)), len(cells.slices))
    index = (b * reads[1] + j) * reads[2] + s  # which read of a token
    stream = Stream(seed, cells.stream, f"read {index}")
    drawn = stream.normal(first_token * columns, tokens * columns)
    normal = torch.from_numpy(drawn).to(digits.device, torch.float64).view(tokens, columns)
    variance = (digits.to(torch.float64) ** 2) @ cells.read_variance[s, cells.blocks[b]].to(torch.float64)
    noise = torch.sqrt(variance) * normal * 2.0 ** -(READ_SD_BITS + NORMAL_BITS)
    return torch.floor(noise + 0.5).to(torch.int64)
