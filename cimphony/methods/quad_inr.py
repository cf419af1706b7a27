"""Implicit neural representations with quadratic activations (QuadINR, arXiv 2508.14374), and what it is held to.

The activation is piecewise quadratic with period 4: x^2 + 2x on (-2, 0], -x^2 + 2x on (0, 2), continued. One
multiplier computes it, its range reduction is a dropped bit (`cimphony.hardware`), and its Fourier series holds odd
harmonics, b_n = 32 / (pi n)^3. A sine of the same period is `sine_matched`: the control that tells the shape of the
activation from its gain.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn

from cimphony.circuits import round_half_up
from cimphony.errors import DataError
from cimphony.hardware import INPUT_FRACTION, OUTPUT_FRACTION, Pipeline


def quad(x: Tensor) -> Tensor:
    """The activation, r (2 - |r|) with r = x wrapped into [-2, 2). Any shape; |value| <= 1, |slope| <= 2."""
    wrapped = torch.remainder(x + 2, 4) - 2
    return wrapped * (2 - wrapped.abs())


@dataclass(frozen=True)
class Kind:
    """One family of networks: its activation of z at a frequency omega, and how its weights begin."""

    activation: Callable[[Tensor, float], Tensor]
    omega: float  # usual value
    periodic: bool = False  # weights begin as in SIREN: U(+-1/in) first, U(+-sqrt(6/in)/omega) after
    encoded: bool = False  # coordinates pass through sines and cosines first
    is_complex: bool = False


_WIRE_WIDTH = 10.0  # of the Gaussian envelope, FINER's comparison

KINDS: dict[str, Kind] = {
    "relu_pe": Kind(lambda z, omega: torch.relu(z), 1.0, encoded=True),
    "siren": Kind(lambda z, omega: torch.sin(omega * z), 30.0, periodic=True),
    "sine_matched": Kind(lambda z, omega: torch.sin(math.pi / 2 * omega * z), 30.0, periodic=True),
    "finer": Kind(lambda z, omega: torch.sin(omega * (z.abs().detach() + 1) * z), 30.0, periodic=True),
    "gauss": Kind(lambda z, omega: torch.exp(-((omega * z) ** 2)), 30.0),
    "wire": Kind(lambda z, omega: torch.exp(1j * omega * z - (_WIRE_WIDTH * z.abs()) ** 2), 20.0, is_complex=True),
    "sinc": Kind(lambda z, omega: torch.sinc(omega / math.pi * z), 30.0),
    "quad": Kind(lambda z, omega: quad(omega * z), 30.0, periodic=True),
}


class Inr(nn.Module):
    """A network from coordinates [point, axis] in [-1, 1] to values [point, channel].

    Args:
        kind: one of `KINDS`.
        axes, channels: sizes of input and output.
        width: of a hidden layer; a complex one (wire) has width / sqrt(2), the same number of reals.
        hidden: hidden layers after the first.
        omega: frequency of the activation; None: the kind's usual one.
        frequencies: octaves of the encoding (relu_pe only).
        seed: decides the first weights; no global generator is touched.
    """

    def __init__(
        self, kind: str, axes: int = 2, channels: int = 1, *, width: int = 48, hidden: int = 2,
        omega: float | None = None, frequencies: int = 6, seed: int = 0,
    ) -> None:  # fmt: skip
        if kind not in KINDS:
            raise DataError(f"kind = {kind!r} is unknown; choose one of {', '.join(KINDS)}")
        super().__init__()
        self.kind, self.frequencies = kind, frequencies
        self.omega = KINDS[kind].omega if omega is None else omega
        self.activation: Callable[[Tensor], Tensor] | None = None  # in place of the kind's own, of omega * z
        inputs = axes * (1 + 2 * frequencies) if KINDS[kind].encoded else axes
        inner = max(1, round(width / math.sqrt(2))) if KINDS[kind].is_complex else width
        sizes = [inputs, *[inner] * (hidden + 1), channels]
        generator = torch.Generator().manual_seed(seed)
        pairs = list(pairwise(sizes))
        self.layers = nn.ModuleList(self._layer(*pair, index == 0, generator) for index, pair in enumerate(pairs))

    def _layer(self, inputs: int, outputs: int, first: bool, generator: torch.Generator) -> nn.Linear:
        kind = KINDS[self.kind]
        dtype = torch.complex64 if kind.is_complex else torch.float32
        layer = cast(nn.Linear, nn.utils.skip_init(nn.Linear, inputs, outputs, dtype=dtype))
        plain = 1 / math.sqrt(inputs)
        bound = (1 / inputs if first else math.sqrt(6 / inputs) / self.omega) if kind.periodic else plain
        with torch.no_grad():
            for parameter, limit in ((layer.weight, bound), (layer.bias, plain)):
                reals = torch.view_as_real(parameter) if kind.is_complex else parameter
                reals.uniform_(-limit, limit, generator=generator)
        return layer

    def forward(self, coordinates: Tensor) -> Tensor:
        """Coordinates [..., axis] to values [..., channel]."""
        kind, z = KINDS[self.kind], coordinates
        if kind.encoded:
            angles = [2.0**octave * math.pi * coordinates for octave in range(self.frequencies)]
            z = torch.cat([coordinates, *(wave(angle) for angle in angles for wave in (torch.sin, torch.cos))], dim=-1)
        if kind.is_complex:
            z = z.to(torch.complex64)
        *inner, last = self.layers
        for layer in inner:
            z = layer(z)
            z = kind.activation(z, self.omega) if self.activation is None else self.activation(self.omega * z)
        outputs = last(z)
        return outputs.real if kind.is_complex else outputs


def grid(*sizes: int) -> Tensor:
    """Coordinates [point, axis] in [-1, 1] of a picture (height, width) or a video (time, height, width)."""
    axes = [torch.linspace(-1, 1, size) if size > 1 else torch.zeros(1) for size in sizes]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, len(sizes))


@dataclass
class Fit:
    """A signal learned by a network: peak signal-to-noise ratio [dB] over the optimiser's steps, and the picture."""

    kind: str
    rate: float
    psnr: dict[int, float] = field(default_factory=dict)
    picture: Tensor | None = None  # same shape as the signal, 0 to 1

    @property
    def best(self) -> float:
        """Highest ratio on the curve [dB]."""
        return max(self.psnr.values())


def fit(
    network: Inr, signal: Tensor, *, steps: int = 500, rate: float = 1e-3, every: int = 100, decay: float = 0.1
) -> Fit:
    """Train on every sample of a signal at once (Adam), as this literature does.

    Args:
        signal: values 0 to 1, shape (*sizes, channel): a picture [height, width, channel] or a video with time first.
        rate: learning rate; it falls to rate * decay on an exponential.
        every: steps between points of the curve.

    Raises DataError for a signal outside 0 to 1.
    """
    if signal.dim() < 2 or not bool(((signal >= 0) & (signal <= 1)).all()):
        raise DataError(f"signal of shape {tuple(signal.shape)}: values must be 0 to 1 and the last axis the channels")
    coordinates, target = grid(*signal.shape[:-1]), signal.reshape(-1, signal.shape[-1]).float() * 2 - 1
    optimiser = torch.optim.Adam(network.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimiser, decay ** (1 / steps))
    result = Fit(network.kind, rate)
    for step in range(1, steps + 1):
        optimiser.zero_grad()
        loss = (network(coordinates) - target).square().mean()
        loss.backward()
        optimiser.step()
        schedule.step()
        if step % every == 0 or step == steps:
            with torch.no_grad():
                picture = (network(coordinates).clamp(-1, 1) + 1) / 2
            result.picture, result.psnr[step] = picture.reshape(signal.shape), psnr(picture, (target + 1) / 2)
    return result


def psnr(picture: Tensor, truth: Tensor) -> float:
    """Peak signal-to-noise ratio [dB] for values 0 to 1."""
    error = float((picture.double() - truth.double()).square().mean())
    return math.inf if error == 0 else -10 * math.log10(error)


def fixed_point(pipeline: Pipeline) -> Callable[[Tensor], Tensor]:
    """An activation as hardware computes it, for `Inr.activation`: rounded to its input format, wrapped, exact inside.

    For quad the pipeline `quad`, for sine_matched one of the sines; no gradient passes.
    """
    half = 1 << (pipeline.input_bits - 1)

    def activation(z: Tensor) -> Tensor:
        codes = round_half_up(z.detach().double() * (1 << INPUT_FRACTION)).to(torch.int64).cpu().numpy()
        results = pipeline.evaluate((codes + half) % (2 * half) - half)
        return torch.from_numpy(results).to(z.device, z.dtype) / (1 << OUTPUT_FRACTION)

    return activation


@dataclass(frozen=True)
class Spectrum:
    """Eigenvalues of the neural tangent kernel on a grid of points, the largest first, as shares of the largest."""

    eigenvalues: Tensor  # float64 [point]

    @property
    def effective_rank(self) -> float:
        """exp(entropy) of the eigenvalues: how many directions training reaches at a similar speed."""
        share = self.eigenvalues.clamp(min=0) / self.eigenvalues.clamp(min=0).sum()
        return float(torch.exp(torch.special.entr(share).sum()))


def tangent_spectrum(network: Inr, coordinates: Tensor) -> Spectrum:
    """The neural tangent kernel K = J J^T at coordinates [point, axis], for a network of one channel.

    J holds df(x)/dtheta of every parameter (Jacot et al. 2018). Its spectrum bounds how fast a network learns detail.
    """
    parameters = {name: one.detach() for name, one in network.named_parameters()}

    def value(weights: dict[str, Tensor], point: Tensor) -> Tensor:
        return torch.func.functional_call(network, weights, (point,)).squeeze()

    gradients = torch.func.vmap(torch.func.grad(value), in_dims=(None, 0))(parameters, coordinates)
    rows = [torch.view_as_real(one) if one.is_complex() else one for one in gradients.values()]
    jacobian = torch.cat([one.flatten(1).double() for one in rows], dim=1)
    eigenvalues = torch.linalg.eigvalsh(jacobian @ jacobian.T).flip(0)
    return Spectrum(eigenvalues / eigenvalues[0])
