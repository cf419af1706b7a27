"""RRAM, the measured state-dependent relaxation of NeuRRAM (Wan et al., Nature 2022).

Coefficients as fitted in aihwkit's ReRamWan2022NoiseModel for g_max = 40 uS: the spread of a cell around its
target at one second, one day and two days after programming. Between those times the spread is interpolated in
log time; after two days it has saturated. A cell keeps its random number as it ages, so its error grows and does
not jump.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from cimphony.chip import RramDevice

_SPREAD = {  # seconds: coefficients in powers of x = g / g_max, uS
    1.0: (0.348, 16.030, -43.853, 45.393, -16.815),
    86_400.0: (0.701, 22.086, -50.773, 47.095, -16.458),
    172_800.0: (0.782, 20.274, -43.507, 37.062, -11.934),
}
_FIT_G_MAX = 40.0  # uS


def program(device: RramDevice, targets: Tensor, top: int, normal: Callable[[str], Tensor]) -> Tensor:
    """The spread at the moment of writing is what is left after one second; `age` applies it."""
    return targets


def age(
    device: RramDevice, levels: Tensor, targets: Tensor, top: int, seconds: float, normal: Callable[[str], Tensor]
) -> Tensor:
    """Target plus a state-dependent Gaussian error; no conductance is negative."""
    if device.programming == device.drift == 0:
        return levels
    low = device.g_min / device.g_max
    x = low + (1 - low) * targets / top
    spread_now = spread(x, seconds) * device.programming
    if device.drift != device.programming:
        spread_now = spread_now + (spread(x, seconds) - spread(x, 1.0)) * (device.drift - device.programming)
    error = spread_now / _FIT_G_MAX * normal("programming")
    return ((x + error).clamp(min=0) - low) * (top / (1 - low))


def read_sd(device: RramDevice, levels: Tensor, written: Tensor, top: int, seconds: float) -> Tensor | None:
    """Log-normal in a cell; a column sums many, so the read sees its variance."""
    if device.read == 0:
        return None
    low = device.g_min / device.g_max
    variance = math.exp(device.read**2)
    return (levels + low * top / (1 - low)).clamp(min=0) * math.sqrt(variance * (variance - 1))


def spread(x: Tensor, seconds: float) -> Tensor:
    """Standard deviation [uS] at relative conductance x = g / g_max (0 to 1), for an age [s]."""
    times = list(_SPREAD)
    time = min(max(seconds, times[0]), times[-1])
    after = next(t for t in times[1:] if time <= t)
    before = times[times.index(after) - 1]
    part = math.log(time / before) / math.log(after / before)
    return (1 - part) * _polynomial(x, _SPREAD[before]) + part * _polynomial(x, _SPREAD[after])


def _polynomial(x: Tensor, coefficients: tuple[float, ...]) -> Tensor:
    value = torch.zeros_like(x)
    for coefficient in reversed(coefficients):
        value = value * x + coefficient
    return value.clamp(min=0)
