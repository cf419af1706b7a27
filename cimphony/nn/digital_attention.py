"""Attention in digital in-memory arithmetic: integer products, softmax between them in floating point.

HyFlexPIM (ISCA 2025), sections 3.3 and 5.1: INT8 queries, keys and values, a 12-bit operand on the way into x V, and
FP16 in the special-function unit, where results become whole numbers again.
"""

from typing import Any

import torch
from torch import Tensor, nn

from cimphony.chip import Chip, NorPimUnit, SpecialFunctionUnit
from cimphony.errors import DataError


class DigitalAttention(nn.Module):
    """softmax(Q K^T * scaling + mask) V with whole-number operands.

    Args:
        layer: name of the attention module; the others describe its heads and are the registry's.
    """

    masked = True  # takes the model's own mask and scaling

    def __init__(self, chip: Chip, unit_name: str, layer: str, *, heads: int, size: int, **_: int) -> None:
        super().__init__()
        unit, special = chip.unit(unit_name, NorPimUnit), chip.unit_for("softmax")
        assert unit.attention is not None
        self.chip, self.unit_name, self.layer, self.unit, self.operands = chip, unit_name, layer, unit, unit.attention
        self.rounds_to_half = isinstance(special, SpecialFunctionUnit) and special.bits == 16
        self.heads, self.size = heads, size
        self.seed = 0

    def program(self, seed: int) -> None:
        """Another chip: digital arithmetic is the same on all."""
        self.seed = seed

    def forward(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float) -> Tensor:
        """[batch, head, query, feature] in and out; key and value heads are repeated where they are fewer.

        Args:
            mask: added to the scores, [batch, 1 or head, query, token]; None: every query sees every token.
        """
        repeats = query.shape[1] // key.shape[1]
        key, value = (part.repeat_interleave(repeats, dim=1) for part in (key, value))
        (left, by_query), (right, by_key) = self._whole(query), self._whole(key)
        scores = (left @ right.transpose(2, 3)) * by_query * by_key.transpose(2, 3) * scaling
        shares = self._softmax(scores if mask is None else scores + mask)
        values, by_token = self._whole(value)
        weights = shares * by_token.transpose(2, 3)  # the scale of a token leaves the sum over tokens on this side
        step = (weights.amax(dim=-1, keepdim=True) / (2**self.operands.probability_bits - 1)).clamp(min=1e-30)
        return ((weights / step).round() @ values * step).to(query.dtype)

    def _whole(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Whole numbers as float64, which holds every sum of products, and their scale for each token or for all."""
        within = (3,) if self.operands.range == "token" else (0, 1, 2, 3)
        top = 2 ** (self.unit.bits - 1) - 1
        inputs = inputs.double()
        scale = (inputs.abs().amax(dim=within, keepdim=True) / top).clamp(min=1e-30)
        if not bool(torch.isfinite(scale).all()):
            raise DataError(f"layer {self.layer}: attention gets NaN or Inf; look at the layer before")
        return (inputs / scale).round(), scale

    def _softmax(self, scores: Tensor) -> Tensor:
        """Every step of the special-function unit rounded to FP16: largest, difference, exponential, sum, quotient."""
        if not self.rounds_to_half:
            return scores.softmax(dim=-1)
        scores = _half(scores.clamp(min=-65504.0))
        grown = _half(_half(scores - scores.amax(dim=-1, keepdim=True)).exp())
        return _half(grown / _half(grown.sum(dim=-1, keepdim=True)))

    def describe(self) -> dict[str, Any]:
        """What is applied, for a summary: plain data, and under `attention` the cells of its table."""
        operands = self.operands
        cells = [
            f"{self.heads} heads of {self.size}", self.unit_name, f"{self.unit.bits}-bit K and V, a {operands.range}",
            f"{self.unit.bits}-bit Q, {operands.probability_bits}-bit softmax",
            f"FP{16 if self.rounds_to_half else 64} softmax", "digital", "exact", "reference",
        ]  # fmt: skip
        return {"kind": self.unit.kind, "seed": self.seed, **operands.model_dump(), "attention": cells}


def _half(values: Tensor) -> Tensor:
    return values.half().to(values.dtype)
