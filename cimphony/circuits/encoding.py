"""Weights become integers, integers become the levels of cells, and back. Exact: decode(encode(w)) == w."""

import torch
from torch import Tensor

from cimphony.chip import Encoding
from cimphony.mapping import Slice, word_gain

_TINY = torch.finfo(torch.float64).tiny


def round_half_up(values: Tensor) -> Tensor:
    """The one rounding of this library: a tie goes up. Part of every definition, see docs/numerics.md."""
    return torch.floor(values + 0.5)


def quantise_weights(weight: Tensor, encoding: Encoding) -> tuple[Tensor, Tensor]:
    """Weights [row, column] as integers [row, column] (float64) and their scale [column] (float64).

    The largest magnitude of a column (or of the tensor) becomes 2^(bits-1) - 1. With `bits` None the largest
    magnitude becomes 1 and nothing is rounded. Binary weights become their signs, the scale is the mean magnitude.
    Nothing but zeros has the scale 0: whatever its cells really hold, its outputs are 0.
    """
    weight = weight.detach().to("cpu", torch.float64)
    if encoding.weights == "binary":
        mean = weight.abs().mean(dim=0) if encoding.scale == "column" else weight.abs().mean().expand(weight.shape[1])
        return torch.where(weight >= 0, 1.0, -1.0).to(torch.float64), mean
    largest = weight.abs().amax(dim=0) if encoding.scale == "column" else weight.abs().amax().expand(weight.shape[1])
    scale = largest if encoding.bits is None else largest / (2 ** (encoding.bits - 1) - 1)
    scale = torch.where(scale > _TINY, scale, 0.0)
    integers = weight / torch.where(scale > 0, scale, 1.0)
    return integers if encoding.bits is None else round_half_up(integers), scale


def encode(integers: Tensor, slices: tuple[Slice, ...], encoding: Encoding) -> list[Tensor]:
    """Levels of the cells [row, column] of every slice, 0 to `slice.top`.

    A slice held in a pair of cells gives its signed level: positive in the positive cell, negative in the other.
    """
    assert encoding.bits is not None
    if encoding.weights == "binary":
        return [(integers + 1) / 2]
    signed = encoding.weights in ("differential", "differential_residual")
    words = integers.to(torch.int64)
    whole = (integers.abs() if signed else integers + 2 ** (encoding.bits - 1)).to(torch.int64)
    sign_bit = 1 << (encoding.bits - 1)
    levels: list[Tensor] = []
    for one in slices:
        if one.residual:  # what the first pair really holds is known after it was written
            digit = torch.zeros_like(whole)
        elif signed:
            digit = (whole // (one.place // word_gain(encoding))) & one.top
            digit = digit * _side(integers, one.polarity)
        elif encoding.weights == "signed_digits":
            digit = words // one.place if one.pair else (words // one.place) & one.top
        elif one.place < 0:  # the top bit of the two's complement, in cells of its own
            digit = ((whole ^ sign_bit) // -one.place) & one.top
        else:
            digit = (whole // one.place) & one.top
        levels.append(digit.to(torch.float64))
    return levels


def _side(integers: Tensor, polarity: int) -> Tensor:
    """+1 or 0 for cells of one polarity; the sign itself where both are subtracted before the converter."""
    sign = integers.sign().to(torch.int64)
    return sign if polarity == 0 else (sign == polarity).to(torch.int64)


def decode(levels: list[Tensor], slices: tuple[Slice, ...], encoding: Encoding) -> Tensor:
    """Weight integers [row, column] that levels stand for; levels may be noisy."""
    total = sum(
        ((level - one.offset) * (one.place * (one.polarity or 1)) for level, one in zip(levels, slices, strict=True)),
        start=torch.zeros_like(levels[0]),
    )
    return total / word_gain(encoding)
