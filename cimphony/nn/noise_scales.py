"""What a number called sigma is relative to: four scales of weight noise, conversions, and chips that have them.

Papers say "noise of 0.02" and mean different things. A weight matrix is [row, column] here, a column an output channel.

| scale | deviation of the error of weight w | who means it |
|---|---|---|
| absolute | sigma | a plain N(0, sigma^2) added to the weights |
| tensor_max | sigma * largest abs weight of the matrix | conductance range mapped to the matrix (NeuroSim's habit) |
| channel_max | sigma * largest abs weight of the column | range mapped to each column (aihwkit-lightning) |
| multiplicative | sigma * abs w | errors relative to the level |
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from cimphony.chip import Chip, CrossbarUnit
from cimphony.errors import DataError, StateError
from cimphony.mapping import weight_slices
from cimphony.nn.convert import analog_layers

Scale = Literal["absolute", "tensor_max", "channel_max", "multiplicative"]
SCALES: tuple[Scale, ...] = get_args(Scale)


@dataclass(frozen=True)
class WeightNoise:
    """Gaussian noise on stored weights, with the name of its scale."""

    sigma: float
    scale: Scale = "tensor_max"

    def __post_init__(self) -> None:
        if self.scale not in SCALES:
            raise DataError(f"scale = {self.scale!r} is not known; choose one of {', '.join(SCALES)}")
        if not (math.isfinite(self.sigma) and self.sigma >= 0):
            raise DataError(f"sigma = {self.sigma} is not allowed: a deviation is finite and not negative")

    def __str__(self) -> str:
        return f"sigma = {self.sigma:g} ({self.scale})"

    def spread(self, matrix: Tensor) -> Tensor:
        """Deviation of every weight of a matrix [row, column], float64."""
        weights = matrix.detach().double().abs()
        unit = {
            "absolute": lambda: torch.ones_like(weights),
            "tensor_max": lambda: weights.max().expand_as(weights),
            "channel_max": lambda: weights.amax(dim=0).expand_as(weights),
            "multiplicative": lambda: weights,
        }[self.scale]()
        return unit * self.sigma

    def rms(self, matrices: Iterable[Tensor]) -> float:
        """Root mean square of the deviations over all weights."""
        spreads = [self.spread(one) for one in matrices]
        count = sum(one.numel() for one in spreads)
        return math.sqrt(sum(float((one**2).sum()) for one in spreads) / count) if count else 0.0

    def to(self, scale: Scale, matrices: Iterable[Tensor]) -> "WeightNoise":
        """Noise of another scale with the same mean square over these weights; for other weights it is another one."""
        matrices = list(matrices)
        unit = WeightNoise(1.0, scale).rms(matrices)
        if unit == 0:
            raise DataError("scales cannot be converted for weights that are all zero, or for none")
        return WeightNoise(self.rms(matrices) / unit, scale)


def with_noise(chip: Chip, noise: WeightNoise) -> Chip:
    """A chip whose stored weights have this programming noise and no other: a Gaussian device in every cell mode.

    Raises DataError for `absolute`, which no conductance range knows: convert it with the model's weights first; and
    for `multiplicative` where a weight is spread over several cells, whose errors do not add up to a relative one.
    """
    name = chip.policy.get("static_matmul", "")
    unit = chip.units.get(name)
    if not isinstance(unit, CrossbarUnit):
        raise DataError(f"chip {chip.name!r} has no crossbar for static_matmul; choose another chip")
    if noise.scale == "absolute":
        raise DataError("absolute noise has no chip: noise.to('tensor_max', matrices) for the weights it is meant for")
    devices = {}
    for mode, bits in unit.cell.bits.items():
        slices = weight_slices(unit.encoding, bits)
        if noise.scale == "multiplicative":
            if [one.pair for one in slices] != [True]:
                raise DataError(
                    f"multiplicative noise needs one pair of cells a weight, units.{name} has {len(slices)} slices: "
                    "use encoding.weights: differential and cell.bits = encoding.bits - 1"
                )
            devices[mode] = {"kind": "gaussian", "multiplicative": noise.sigma}
            continue
        top = (1 << bits) - 1 if unit.encoding.bits is None else 2 ** (unit.encoding.bits - 1) - 1
        power = sum((one.place * one.top) ** 2 * (2 if one.pair else 1) for one in slices)
        devices[mode] = {"kind": "gaussian", "additive": noise.sigma * top / math.sqrt(power)}
    scale = {"tensor_max": "tensor", "channel_max": "column"}.get(noise.scale, unit.encoding.scale)
    return chip.replace({f"units.{name}.cell.device": devices, f"units.{name}.encoding.scale": scale})


def measured_noise(model: nn.Module, unit: str | None = None) -> dict[Scale, WeightNoise]:
    """What the programmed cells really do to the weights, in every scale: rms error over all layers of a unit.

    Quantisation is part of it. `unit` is the chip's unit of static_matmul unless named. Raises StateError where nothing
    is programmed.
    """
    pairs = [
        (matrix.detach().double(), tiles.programmed.weights.double())
        for layer in analog_layers(model).values()
        for tiles, matrix in zip(layer.tiles, layer.matrices(), strict=True)
        if tiles.programmed is not None and tiles.unit_name == (unit or tiles.chip.policy.get("static_matmul"))
    ]
    if not pairs:
        raise StateError("measured_noise: nothing is programmed; cim.program_(model, seed=...) comes first")
    count = sum(matrix.numel() for matrix, _ in pairs)
    error = math.sqrt(sum(float(((held - matrix) ** 2).sum()) for matrix, held in pairs) / count)
    known = WeightNoise(error, "absolute")
    return {scale: known.to(scale, [matrix for matrix, _ in pairs]) for scale in SCALES}
