"""A device as it was measured: mean and spread of the cells at each target, straight lines between them.

Errors are Gaussian; their mean and spread are the user's own table (`MeasuredDevice.levels`). The reference column is
taken to drift as its neighbours do, so what drifts is the conductance above the lowest level.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from cimphony.chip import MeasuredDevice


def program(device: MeasuredDevice, targets: Tensor, top: int, normal: Callable[[str], Tensor]) -> Tensor:
    """Target plus the measured mean error and a draw of the measured spread; no conductance is negative."""
    if device.programming == 0:
        return targets
    low, step = _scale(device, top)
    asked = low + targets * step
    error = _at(device, "mean", asked) - asked + _at(device, "sd", asked) * normal("programming")
    return ((asked + error * device.programming).clamp(min=0) - low) / step


def age(
    device: MeasuredDevice, levels: Tensor, targets: Tensor, top: int, seconds: float, normal: Callable[[str], Tensor]
) -> Tensor:
    """level * (t / since)^-nu, from `since` on."""
    drift = device.drift
    if drift is None or seconds <= drift.since:
        return levels
    nu = drift.exponent + drift.spread * normal("drift") if drift.spread else torch.full_like(levels, drift.exponent)
    return levels * torch.exp(-nu * math.log(seconds / drift.since))


def read_sd(device: MeasuredDevice, levels: Tensor, written: Tensor, top: int, seconds: float) -> Tensor | None:
    """The measured spread of reads at the conductance that the cell holds."""
    if device.read == 0 or not any(level.read for level in device.levels):
        return None
    low, step = _scale(device, top)
    return _at(device, "read", low + levels * step) * (device.read / step)


def _scale(device: MeasuredDevice, top: int) -> tuple[float, float]:
    """Conductance of level 0 and of one level more [S]."""
    return device.g_min, (device.g_max - device.g_min) / top


def _at(device: MeasuredDevice, column: str, conductance: Tensor) -> Tensor:
    """A column of the table at any conductance [S]; beyond its ends as at them."""
    at, values = (
        torch.tensor([getattr(level, name) for level in device.levels], dtype=torch.float64)
        for name in ("target", column)
    )
    after = torch.searchsorted(at, conductance.contiguous()).clamp(1, len(at) - 1)
    part = ((conductance - at[after - 1]) / (at[after] - at[after - 1])).clamp(0, 1)
    return torch.lerp(values[after - 1], values[after], part)
