"""What differs between gain cells, writes and reads: every number is drawn by (seed, layer, sequence, purpose, index).

So the same chip gives the same numbers whether a text runs at once or token by token, alone or in a batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cimphony.chip import GainCellAttentionUnit, GainCellNoise
from cimphony.random import NORMAL_BITS, Stream


@dataclass(frozen=True)
class Draws:
    """The numbers of one layer for some tokens of some sequences.

    Args:
        heads, features: query heads, and their size.
        sequences: a number for each entry of the batch: which text since the chip was made.
        first, tokens: position of the first query and how many follow.
    """

    unit: GainCellAttentionUnit
    noise: GainCellNoise
    seed: int
    layer: str
    heads: int
    features: int
    sequences: Sequence[int]
    first: int
    tokens: int

    def cells(self, array: str, slot: Tensor) -> tuple[Tensor, Tensor] | None:
        """Relative gain and offset [A] of the cells of columns `slot`: [head, column, feature]."""
        if not (self.noise.gain or self.noise.offset):
            return None
        shape = (self.heads, self.unit.window, self.features)
        size = self.heads * self.unit.window * self.features
        parts = [
            self._fixed(f"{array} {name}", size).view(shape)[:, slot.cpu()].to(slot.device) * sd
            for name, sd in (("gain", self.noise.gain), ("offset", self.noise.offset))
        ]
        return parts[0], parts[1]

    def write(self, volts: Tensor, array: str) -> Tensor:
        """Voltages [batch, head, token, feature] as they are really written."""
        if not self.noise.write:
            return volts
        drawn = self._fresh(f"write {array}", volts.shape[1] * volts.shape[3])
        error = drawn.view(len(self.sequences), self.tokens, volts.shape[1], volts.shape[3]).transpose(1, 2)
        return volts + error.to(volts) * self.noise.write

    def jitter(self, pulses: Tensor, what: str, slot: Tensor | None = None) -> Tensor:
        """Pulse widths [batch, head, query, line] with their jitter; where there is no pulse there is none."""
        if not self.noise.jitter:
            return pulses
        drawn = self._lines(f"jitter {what}", pulses, slot) * (self.noise.jitter / self.unit.pulses.longest)
        return torch.where(pulses > 0, (pulses + drawn).clamp(min=0.0), pulses)

    def score_noise(self, sums: Tensor, slot: Tensor) -> Tensor:
        """Sums of the key columns [batch, head, query, column] with read noise and the comparators' zeros [A]."""
        if self.noise.comparator:
            size = self.heads * self.unit.window
            zero = self._fixed("comparator key", size).view(self.heads, 1, self.unit.window)[..., slot.cpu()]
            sums = sums + zero.to(sums) * self.noise.comparator
        return sums + self._lines("read key", sums, slot) * self.noise.read if self.noise.read else sums

    def readout_noise(self, charge: Tensor, tile: int) -> Tensor:
        """Sums of the value columns of one sub-tile [batch, head, query, feature] with the same."""
        if self.noise.comparator:
            zero = self._fixed(f"comparator value {tile}", self.heads * self.features).view(self.heads, 1, -1)
            charge = charge + zero.to(charge) * self.noise.comparator
        return charge + self._lines(f"read value {tile}", charge) * self.noise.read if self.noise.read else charge

    def _lines(self, purpose: str, like: Tensor, slot: Tensor | None = None) -> Tensor:
        """Normal numbers [batch, head, query, line], where a line is a feature or the column in a slot."""
        lines = self.features if slot is None else self.unit.window
        drawn = self._fresh(purpose, self.heads * lines)
        whole = drawn.view(len(self.sequences), self.tokens, self.heads, lines).transpose(1, 2)
        return (whole if slot is None else whole[..., slot.cpu()]).to(like)

    def _fixed(self, purpose: str, size: int) -> Tensor:
        return _normal(Stream(self.seed, self.layer, purpose), 0, size)

    def _fresh(self, purpose: str, width: int) -> Tensor:
        """[sequence, token, width]."""
        streams = [Stream(self.seed, f"{self.layer}/{number}", purpose) for number in self.sequences]
        drawn = [_normal(stream, self.first * width, self.tokens * width) for stream in streams]
        return torch.stack(drawn).view(len(streams), self.tokens, width)


def _normal(stream: Stream, start: int, count: int) -> Tensor:
    return torch.from_numpy(stream.normal(start, count).astype(np.float64) * 2.0**-NORMAL_BITS)
