"""Layers of binary weights: digital, in training with straight-through weights, or read from 1-bit cells."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cimphony.chip import CrossbarUnit
from cimphony.circuits import Cells, read
from cimphony.methods.bwma_activations import Staircase
from cimphony.methods.bwma_weights import Binary, Grain, Rule, binarise
from cimphony.nn.layers import pad, pixels, receptive_fields


@dataclass
class BinaryArray:
    """The cells behind one weight matrix: a column for every output and, last, the dummy column of ones."""

    unit: CrossbarUnit
    cells: Cells
    seed: int
    tokens_read: int = 0

    def read(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Codes [token, row] to b * q [token, column] and the sum of q [token, 1], as the converters see both."""
        words = codes.to(torch.int64)
        first, self.tokens_read = self.tokens_read, self.tokens_read + words.shape[0]
        product = read(words, self.cells, self.unit.input, seed=self.seed, first_token=first)  # 2 (level * q) - sum
        exact = words.sum(dim=1, keepdim=True).to(product.dtype)
        total = (product[:, -1:] + exact) / 2
        return product[:, :-1] + exact - total, total


class BinaryLayer(nn.Module):
    """What binary layers share. They keep the class, parameters and names of the layer they replace."""

    weight: Tensor
    bias: Tensor | None
    staircase: Staircase
    rule: Rule
    grain: Grain
    groups: int = 1
    folded: tuple[Tensor, Tensor] | None  # scale and shift [channel] of a folded batch normalisation
    arrays: list[BinaryArray] | None  # one for each group; None: digital

    def binary(self) -> Binary:
        """The present weights by the layer's rule."""
        return binarise(self.weight, self.rule, self.grain)

    def product(self, x: Tensor, weight: Tensor) -> Tensor:
        """The plain linear operation, without bias."""
        raise NotImplementedError

    def fields(self, codes: Tensor) -> Iterator[Tensor]:
        """What the rows of each group's array see: codes [token, row]."""
        raise NotImplementedError

    def shaped(self, outputs: Tensor, codes: Tensor) -> Tensor:
        """Outputs [token, channel] of an array in the layout of `product`."""
        raise NotImplementedError

    def compute(self, x: Tensor) -> Tensor:
        """Training sees the differentiable staircase and, straight through, the binary weight."""
        if self.training or self.staircase.observed is not None:
            weight = self.weight + (self.binary().weight() - self.weight).detach()
            outputs, (scale, shift) = self.product(self.staircase(x), weight), self._outer()
            return outputs * scale + shift
        codes = self.staircase.codes(x)
        signed, total = self._digital(codes) if self.arrays is None else self._analog(codes)
        return self._epilogue(signed, total)

    def _digital(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        """b * q and the sum of q: whole numbers, exact in float32 below 2^24."""
        ones = torch.ones_like(self.weight[: self.groups])
        return self.product(codes, self.binary().sign), self._spread(self.product(codes, ones))

    def _analog(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        assert self.arrays is not None
        pairs = [array.read(field) for array, field in zip(self.arrays, self.fields(codes), strict=True)]
        signed, total = (torch.cat([pair[side] for pair in pairs], dim=1).to(codes.dtype) for side in (0, 1))
        return self.shaped(signed, codes), self._spread(self.shaped(total, codes))

    def _spread(self, total: Tensor) -> Tensor:
        """Sums [.., group, ..] for every channel of the group."""
        axis = 1 if isinstance(self, nn.Conv2d) else -1
        return total.repeat_interleave(self.weight.shape[0] // self.groups, dim=axis) if self.groups > 1 else total

    def _epilogue(self, signed: Tensor, total: Tensor) -> Tensor:
        found, (scale, shift) = self.binary(), self._outer()
        step = self.staircase.clip / self.staircase.steps
        alpha, beta = (self._channel(one * step) * scale for one in (found.alpha, found.beta))
        return signed * alpha + total * beta + shift

    def _outer(self) -> tuple[Tensor, Tensor]:
        """Scale and shift of the whole layer: folded normalisation and bias, shaped for broadcasting."""
        one = torch.ones_like(self.weight[:, *[0] * (self.weight.dim() - 1)])
        scale, shift = (one, torch.zeros_like(one)) if self.folded is None else self.folded
        if self.bias is not None:
            shift = shift + self.bias * scale
        return self._channel(scale), self._channel(shift)

    def _channel(self, values: Tensor) -> Tensor:
        return values.view(-1, 1, 1) if isinstance(self, nn.Conv2d) else values


class BinaryConv2d(BinaryLayer, nn.Conv2d):
    """nn.Conv2d with binary weights and a staircase on its inputs."""

    groups: int

    def forward(self, input: Tensor) -> Tensor:
        """Images [batch, channel, height, width] or [channel, height, width]."""
        return self.compute(input[None])[0] if input.dim() == 3 else self.compute(input)

    def product(self, x: Tensor, weight: Tensor) -> Tensor:
        """Convolution without bias."""
        return F.conv2d(pad(self, x), weight, None, self.stride, 0, self.dilation, self.groups)

    def fields(self, codes: Tensor) -> Iterator[Tensor]:
        """Receptive fields [pixel of any image, row], a group at a time."""
        return (one.flatten(0, 1) for one in receptive_fields(self, pad(self, codes)))

    def shaped(self, outputs: Tensor, codes: Tensor) -> Tensor:
        """[batch, channel, height, width]."""
        return outputs.view(codes.shape[0], *pixels(self, pad(self, codes[:1])), -1).permute(0, 3, 1, 2)


class BinaryLinear(BinaryLayer, nn.Linear):
    """nn.Linear with binary weights and a staircase on its inputs."""

    def forward(self, input: Tensor) -> Tensor:
        """Inputs [..., in_features]."""
        return self.compute(input)

    def product(self, x: Tensor, weight: Tensor) -> Tensor:
        """Linear without bias."""
        return F.linear(x, weight)

    def fields(self, codes: Tensor) -> Iterator[Tensor]:
        """One field for every token."""
        yield codes.flatten(0, -2)

    def shaped(self, outputs: Tensor, codes: Tensor) -> Tensor:
        """[..., out_features]."""
        return outputs.view(*codes.shape[:-1], -1)
