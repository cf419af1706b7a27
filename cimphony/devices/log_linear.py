"""TaOx RRAM with log-linear noise: the spread of a conductance is a power of the conductance, up to a limit.

Source: NL-DPE (arXiv 2511.13950), Eqs 5 and 6, with the constants of its released code; the form is that of Mao et al.
2022. Drift is negligible in these devices and left out.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from cimphony.chip import LogLinearDevice, StateSpread

_MICRO = 1e-6
_SMALLEST = 1e-9  # uS


def spread(law: StateSpread | None, conductance: Tensor) -> Tensor:
    """Standard deviation of conductances; both in siemens, any shape."""
    if law is None:
        return torch.zeros_like(conductance)
    held = (conductance / _MICRO).clamp(_SMALLEST, law.top / _MICRO)
    return torch.exp(law.exponent * held.log() + law.offset) * _MICRO


def program(device: LogLinearDevice, targets: Tensor, top: int, normal: Callable[[str], Tensor]) -> Tensor:
    """Target plus an error of state-dependent spread; no conductance is negative."""
    if device.programming is None or device.scale == 0:
        return targets
    conductance = _conductance(device, targets, top)
    held = conductance + spread(device.programming, conductance) * device.scale * normal("programming")
    return (held.clamp(min=0) - device.g_min) * (top / (device.g_max - device.g_min))


def age(
    device: LogLinearDevice, levels: Tensor, targets: Tensor, top: int, seconds: float, normal: Callable[[str], Tensor]
) -> Tensor:
    """No drift."""
    return levels


def read_sd(device: LogLinearDevice, levels: Tensor, written: Tensor, top: int, seconds: float) -> Tensor | None:
    """The read law at the conductance that the cell holds."""
    if device.read is None or device.scale == 0:
        return None
    held = _conductance(device, levels, top).clamp(min=0)
    return spread(device.read, held) * (device.scale * top / (device.g_max - device.g_min))


def _conductance(device: LogLinearDevice, levels: Tensor, top: int) -> Tensor:
    return device.g_min + levels * ((device.g_max - device.g_min) / top)
