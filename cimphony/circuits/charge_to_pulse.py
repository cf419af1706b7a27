"""Charge to pulse: the circuits between and behind the two products of gain-cell attention, and their quantisers.

Gradients: exact where a signal is clamped, as if there were no steps where it is quantised (straight-through).
"""

import torch
from torch import Tensor

from cimphony.circuits.encoding import round_half_up


def quantise(values: Tensor, levels: int | None, top: float) -> Tensor:
    """Values clamped to 0 ... top and moved to the nearest of `levels` evenly spaced ones; None: clamped only."""
    clamped = values.clamp(0.0, top)
    if levels is None:
        return clamped
    step = top / (levels - 1)
    return _straight_through(clamped, round_half_up(clamped / step) * step)


def hard_sigmoid(scores: Tensor, saturation: float) -> Tensor:
    """Pulse widths, 0 to 1 of the longest: none for a negative sum, in proportion to it up to `saturation`.

    Source: Leroux et al. 2025, equation 3.
    """
    return (scores / saturation).clamp(0.0, 1.0)


def signed_readout(sums: Tensor, saturation: float, levels: int | None) -> Tensor:
    """Sums as a sign and a pulse count, -1 to 1: `levels / 2` counts from 0 to full scale. None: clamped only."""
    clamped = (sums / saturation).clamp(-1.0, 1.0)
    if levels is None:
        return clamped
    top = levels // 2 - 1
    return _straight_through(clamped, torch.sign(clamped) * round_half_up(clamped.abs() * top) / top)


def _straight_through(values: Tensor, quantised: Tensor) -> Tensor:
    if not (torch.is_grad_enabled() and values.requires_grad):
        return quantised
    return values + (quantised - values).detach()
