"""Moving a pretrained model to gain-cell attention: linear cells first, then match the scalers, then the real cells.

    cim.convert_(model, chip)
    linearise_(model)                      # cells follow a straight line; training records each scaler's statistics
    tune_(model, batches, steps=300)       # or any other training, transformers' Trainer for example
    adapt_(model, chip, batch)             # the real cells; gains and shifts matched, no gradients
    tune_(model, batches, steps=300)       # gradients as if the cells were linear

Source: Leroux et al., Nature Computational Science 5 (2025), section Model adaptation and Methods.
"""

from dataclasses import dataclass, field

import torch
from rich.progress import Progress
from torch import nn

from cimphony.chip import Chip, LinearMultiplier
from cimphony.errors import DataError, StateError
from cimphony.methods.training import Batch, tune_
from cimphony.nn import GainCellAttention, attention_layers

__all__ = ["Adaptation", "adapt_", "linearise_", "tune_"]
_MATCH_OVER = 50  # iterations over which the step falls from 1 to its smallest
_SMALLEST_STEP = 0.1


@dataclass
class Adaptation:
    """What matching did: the loss before every iteration and after the last, and the largest distance left."""

    losses: list[float] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)
    converged: bool = False

    @property
    def iterations(self) -> int:
        """Updates of the scalers."""
        return len(self.losses) - 1


def linearise_(model: nn.Module) -> nn.Module:
    """First stage: replace the cells' currents by straight lines of the multiplier's slope, and record statistics.

    Training afterwards, by any means, leaves each scaler's targets in the model. Raises StateError where the model has
    no gain-cell attention, DataError where the multiplier names no slope.
    """
    for attention in _attention(model, "linearise_"):
        slope = getattr(attention.unit.cell.multiplier, "slope", None)
        name = f"units.{attention.unit_name}.cell.multiplier"
        if slope is None:
            raise DataError(f"linearise_: {name}.slope is not given; set the slope of a straight line in its place")
        line = LinearMultiplier(slope=slope).model_dump()
        attention.use(attention.chip.replace({name: line}), attention.unit_name)
        _watch(attention, "record")
    return model


def adapt_(
    model: nn.Module,
    chip: Chip,
    batch: Batch,
    *,
    iterations: int = 100,
    tolerance: float = 1e-4,
    progress: bool = False,
) -> Adaptation:
    """Second stage: put the real cells in and match mean and deviation behind every scaler, head by head.

    Args:
        chip: the one the model is to run on.
        batch: fixed, with labels, as the model takes it; run once in each iteration without gradients.
        tolerance: largest distance of a mean or deviation at which it is left alone; all within it ends the matching.

    Raises StateError where the first stage was left out or nothing was trained in it.
    """
    layers = _attention(model, "adapt_")
    _check_trained(layers)
    for attention in layers:
        attention.use(chip, attention.unit_name)
        _watch(attention, "measure")
    training, done = model.training, Adaptation()
    model.eval()
    try:
        with Progress(transient=True, disable=not progress) as bar, torch.no_grad():
            for iteration in bar.track(range(iterations), description="matching"):
                done.losses.append(float(model(**batch).loss))
                step = max(_SMALLEST_STEP, 1 - (1 - _SMALLEST_STEP) * iteration / _MATCH_OVER)
                done.errors.append(max(_match(attention, step, tolerance) for attention in layers))
                done.converged = done.errors[-1] <= tolerance
                if done.converged:
                    break
            done.losses.append(float(model(**batch).loss))
    finally:
        for attention in layers:
            _watch(attention, "off")
        model.train(training)
    return done


def _check_trained(layers: list[GainCellAttention]) -> None:
    for attention in layers:
        if attention.unit.cell.multiplier.kind != "linear":
            raise StateError("adapt_: the cells are not linear; linearise_(model) and training come first")
        if not all(int(scaler.recorded) for scaler in attention.scalers.values()):
            raise StateError(
                f"adapt_: layer {attention.layer} recorded no statistics; train the linear model in training mode first"
            )


def _match(attention: GainCellAttention, step: float, tolerance: float) -> float:
    """Move gains and shifts of one layer towards its targets; returns the largest distance there was."""
    worst = 0.0
    for scaler in attention.scalers.values():
        assert scaler.measured is not None
        mean, deviation = (one.to(scaler.gain) for one in scaler.measured)
        off_deviation, off_mean = scaler.deviation - deviation, scaler.mean - mean
        worst = max(worst, float(off_deviation.abs().max()), float(off_mean.abs().max()))
        moves = (off_deviation.abs() > tolerance) & (deviation > 0)
        ratio = torch.where(moves, scaler.deviation / deviation.clamp(min=1e-20), 1.0)
        scaler.gain.data = scaler.gain * (1 + step * (ratio - 1))
        scaler.shift.data = scaler.shift + torch.where(off_mean.abs() > tolerance, step * off_mean, 0.0)
    return worst


def _attention(model: nn.Module, verb: str) -> list[GainCellAttention]:
    layers = list(attention_layers(model).values())
    if not layers:
        raise StateError(f"{verb}: the model has no gain-cell attention; cim.convert_(model, chip) comes first")
    return layers


def _watch(attention: GainCellAttention, what: str) -> None:
    for scaler in attention.scalers.values():
        scaler.watch = what
