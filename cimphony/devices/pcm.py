"""Phase-change memory, the published statistical model of a million devices.

Source: Nandakumar et al. 2019 and Joshi et al. 2020, with the coefficients of aihwkit's PCMLikeNoiseModel.
x = g / g_max; the fit is for g_max = 25 uS, and spreads scale with g_max.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from cimphony.chip import PcmDevice

_PROGRAMMING = (0.26348, 1.9650, -1.1731)  # uS, in powers of x, at g_max = 25 uS
_FIT_G_MAX = 25.0  # uS
_T0 = 20.0  # s between programming and the first read that the drift law counts from
_T_READ = 250e-9  # s


def program(device: PcmDevice, targets: Tensor, top: int, normal: Callable[[str], Tensor]) -> Tensor:
    """Write-and-verify leaves a state-dependent error; no conductance is negative."""
    x = targets / top
    c0, c1, c2 = _PROGRAMMING
    sd = (c0 + c1 * x + c2 * x * x).clamp(min=0) / _FIT_G_MAX * device.programming
    return (x + sd * normal("programming")).clamp(min=0) * top


def age(
    device: PcmDevice, levels: Tensor, targets: Tensor, top: int, seconds: float, normal: Callable[[str], Tensor]
) -> Tensor:
    """g(t) = g * ((t + t0) / t0)^-nu, nu drawn once for each cell and larger for lower conductances."""
    if seconds <= 0 or device.drift == 0:
        return levels
    log_x = torch.log((targets / top).clamp(min=1e-9))
    mean = (-0.0155 * log_x + 0.0244).clamp(0.049, 0.1)
    sd = (-0.0125 * log_x - 0.0059).clamp(0.008, 0.045)
    nu = (mean + sd * normal("drift")).abs() * device.drift
    return levels * torch.exp(-nu * math.log((seconds + _T0) / _T0))


def read_sd(device: PcmDevice, levels: Tensor, written: Tensor, top: int, seconds: float) -> Tensor | None:
    """1/f noise integrated from the read time to the age: a share of the aged conductance, set by the written one."""
    if device.read == 0:
        return None
    x = (written / top).clamp(min=0)
    q = (0.0088 / x.pow(0.65).clamp(min=1e-3)).clamp(max=0.2)
    integrated = math.sqrt(math.log((seconds + _T0 + _T_READ) / (2 * _T_READ)))
    return levels.clamp(min=0) * q * (integrated * device.read)
