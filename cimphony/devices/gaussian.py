"""Gaussian errors of constant spread: the model most papers use."""

from collections.abc import Callable

import torch
from torch import Tensor

from cimphony.chip import GaussianDevice


def program(device: GaussianDevice, targets: Tensor, top: int, normal: Callable[[str], Tensor]) -> Tensor:
    """level * (1 + multiplicative * z) + additive * top * z'. Levels may leave 0 to top: the model is linear."""
    levels = targets
    if device.multiplicative:
        levels = levels + targets * normal("programming") * device.multiplicative
    if device.additive:
        levels = levels + normal("programming, additive") * (device.additive * top)
    return levels


def age(
    device: GaussianDevice, levels: Tensor, targets: Tensor, top: int, seconds: float, normal: Callable[[str], Tensor]
) -> Tensor:
    """No drift."""
    return levels


def read_sd(device: GaussianDevice, levels: Tensor, written: Tensor, top: int, seconds: float) -> Tensor | None:
    """The same for every cell."""
    return torch.full_like(levels, device.read * top) if device.read else None
