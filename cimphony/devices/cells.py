"""From a device description to the state of its cells: the one place that knows every technology."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from cimphony.chip import (
    Device,
    GaussianDevice,
    IdealDevice,
    LogLinearDevice,
    MeasuredDevice,
    PcmDevice,
    RramDevice,
    Stuck,
)
from cimphony.devices import gaussian, ideal, log_linear, measured, pcm, rram
from cimphony.random import NORMAL_BITS, Stream

Normal = Callable[[str], Tensor]  # purpose -> standard normal numbers, one for each cell


class Technology(Protocol):
    """What every file of this folder provides."""

    program: Callable[..., Tensor]
    age: Callable[..., Tensor]
    read_sd: Callable[..., Tensor | None]


_TECHNOLOGIES: dict[type, Technology] = {
    IdealDevice: ideal,  # type: ignore[dict-item]
    GaussianDevice: gaussian,  # type: ignore[dict-item]
    PcmDevice: pcm,  # type: ignore[dict-item]
    RramDevice: rram,  # type: ignore[dict-item]
    LogLinearDevice: log_linear,  # type: ignore[dict-item]
    MeasuredDevice: measured,  # type: ignore[dict-item]
}


@dataclass(frozen=True)
class CellState:
    """Cells as the next read finds them."""

    levels: Tensor  # float64, same shape as the targets
    read_sd: Tensor | None  # float64, spread of one read in levels; None: quiet


def hold(device: Device, targets: Tensor, top: int, *, seed: int, name: str, start: int, seconds: float) -> CellState:
    """Program targets into cells and let them age.

    Args:
        targets: levels 0 to top, any shape, float64.
        seed, name: the manufactured chip and the layer; with `start`, the index of the first cell in the layer,
            they decide every random number, whatever is programmed before, after or elsewhere.
        seconds: age after programming [s].
    """

    def normal(purpose: str) -> Tensor:
        drawn = Stream(seed, name, purpose).normal(start, targets.numel())
        return torch.from_numpy(drawn).to(torch.float64).mul_(2.0**-NORMAL_BITS).view(targets.shape)

    technology = _TECHNOLOGIES[type(device)]
    programmed = technology.program(device, targets, top, normal)
    aged = technology.age(device, programmed, targets, top, seconds, normal)
    if device.stuck is not None:
        uniform = torch.from_numpy(Stream(seed, name, "stuck").uniform(start, targets.numel())).view(targets.shape)
        programmed, aged = (_stick(device.stuck, levels, top, uniform) for levels in (programmed, aged))
    return CellState(aged, technology.read_sd(device, aged, programmed, top, seconds))


def _stick(stuck: Stuck, levels: Tensor, top: int, uniform: Tensor) -> Tensor:
    levels = torch.where(uniform < stuck.off, 0.0, levels)
    return torch.where(uniform >= 1 - stuck.on, float(top), levels)
