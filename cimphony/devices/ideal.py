"""The perfect device."""

from collections.abc import Callable

from torch import Tensor

from cimphony.chip import IdealDevice


def program(device: IdealDevice, targets: Tensor, top: int, normal: Callable[[str], Tensor]) -> Tensor:
    """Cells hold their targets."""
    return targets


def age(
    device: IdealDevice, levels: Tensor, targets: Tensor, top: int, seconds: float, normal: Callable[[str], Tensor]
) -> Tensor:
    """Nothing changes."""
    return levels


def read_sd(device: IdealDevice, levels: Tensor, written: Tensor, top: int, seconds: float) -> Tensor | None:
    """Reads are quiet."""
    return None
