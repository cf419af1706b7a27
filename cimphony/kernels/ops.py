"""The compiled reads as torch operators, so that `torch.compile` keeps them whole and autocast leaves them alone.

An operator takes tensors and plain numbers; `PackedCells` goes in as its three tensors and a list of integers.
"""

import torch
from torch import Tensor

from cimphony.kernels import direct, tables
from cimphony.kernels.packed import PackedCells


@torch.library.custom_op("cimphony::read_tables", mutates_args=(), device_types="cpu")
def _read_tables(
    inputs: Tensor, panels: Tensor, places: Tensor, inverted: Tensor, shape: list[int], code: list[int], bits: int
) -> Tensor:
    return tables.read(inputs, PackedCells.of(panels, places, inverted, shape), tuple(code), bits)  # type: ignore[arg-type]


@torch.library.custom_op("cimphony::read_direct", mutates_args=(), device_types="cpu")
def _read_direct(
    digits: Tensor,
    panels: Tensor,
    places: Tensor,
    inverted: Tensor,
    shape: list[int],
    digit_places: list[int],
    converter: list[float],
    variance: Tensor | None,
    keys: Tensor | None,
    noise: list[float],
) -> Tensor:
    gain, low, high = converter
    added = None
    if keys is not None:
        single, first_token, scale = noise
        added = direct.ReadNoise(int(single) if variance is None else variance, keys, int(first_token), scale)
    packed = PackedCells.of(panels, places, inverted, shape)
    return direct.read(digits, tuple(digit_places), packed, gain=gain, low=int(low), high=int(high), noise=added)


@_read_tables.register_fake
def _(inputs, panels, places, inverted, shape, code, bits):
    return inputs.new_empty((inputs.shape[0], shape[1]), dtype=torch.int32)


@_read_direct.register_fake
def _(digits, panels, places, inverted, shape, digit_places, converter, variance, keys, noise):
    return digits.new_empty((digits.shape[0], shape[1]), dtype=torch.int32)


def read_tables(inputs: Tensor, packed: PackedCells, code: tables.Code, bits: int) -> Tensor:
    """`tables.read`, in a graph as an operator."""
    if not torch.compiler.is_compiling():  # an operator costs 20 microseconds
        return tables.read(inputs, packed, code, bits)
    return _read_tables(inputs, *packed.tensors, packed.numbers, list(code), bits)


def read_direct(
    digits: Tensor,
    places: tuple[int, ...],
    packed: PackedCells,
    *,
    gain: float,
    low: int,
    high: int,
    noise: direct.ReadNoise | None,
) -> Tensor:
    """`direct.read` as an operator."""
    converter = [gain, float(low), float(high)]
    if noise is None:
        return _read_direct(digits, *packed.tensors, packed.numbers, list(places), converter, None, None, [])
    variance = noise.variance if isinstance(noise.variance, Tensor) else None
    single = -1.0 if isinstance(noise.variance, Tensor) else float(noise.variance)
    rest = [single, float(noise.first_token), noise.scale]
    return _read_direct(digits, *packed.tensors, packed.numbers, list(places), converter, variance, noise.keys, rest)
