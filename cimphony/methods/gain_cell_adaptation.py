"""Moving a pretrained model to gain-cell attention: linear cells first, then match the scalers, then the real cells.

    cim.convert_(model, chip)
    linearise_(model)                      # cells follow a straight line; training records each scaler's statistics
    tune_(model, batches, steps=300)       # or any other training, transformers' Trainer for example
    adapt_(model, chip, batch)             # the real cells; gains and shifts matched, no gradients
    tune_(model, batches, steps=300)       # gradients as if the cells were linear

Source: Leroux et al., Nature Computational Science 5 (2025), section Model adaptation and Methods.
"""

import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from cimphony.chip import Chip, LinearMultiplier
from cimphony.errors import DataError, StateError
from cimphony.nn import GainCellAttention, attention_layers

Batch = Mapping[str, Any]
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


# training


def tune_(
    model: nn.Module,
    batches: Callable[[int], Batch],
    steps: int,
    *,
    lr: float = 6e-4,
    warm_up: int = 0,
    checkpoint: str | Path | None = None,
    save_every: int = 100,
    progress: bool = False,
) -> list[float]:
    """Train with AdamW as the paper does, weight decay on matrices only; returns the loss of every step.

    Args:
        batches: step to batch, with labels. It alone decides the data, so that a resumed run sees what another would.
        warm_up: steps over which the rate rises; then it falls to a tenth along a cosine.
        checkpoint: a file that the run is saved to and resumed from.

    Raises DataError where the checkpoint is another model's, or a loss is not finite.
    """
    parameters = [one for one in model.parameters() if one.requires_grad]
    groups = [{"params": [one for one in parameters if one.dim() > 1], "weight_decay": 0.1}]
    groups.append({"params": [one for one in parameters if one.dim() <= 1], "weight_decay": 0.0})
    optimiser = torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.95))
    losses = _resume(Path(checkpoint), model, optimiser) if checkpoint and Path(checkpoint).is_file() else []
    training = model.training
    model.train()
    with Progress(disable=not progress) as bar:
        task = bar.add_task("training", total=steps, completed=len(losses))
        for step in range(len(losses), steps):
            rate = lr * _schedule(step, steps, warm_up)
            for group in optimiser.param_groups:
                group["lr"] = rate
            optimiser.zero_grad()
            loss = model(**batches(step)).loss
            losses.append(float(loss.detach()))
            if not math.isfinite(losses[-1]):
                raise DataError(f"the loss of step {step} is {losses[-1]}; lower lr = {lr:g}, or raise warm_up")
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimiser.step()
            bar.update(task, advance=1, description=f"training, loss {losses[-1]:.3f}")
            if checkpoint and ((step + 1) % save_every == 0 or step + 1 == steps):
                _save(Path(checkpoint), model, optimiser, losses)
    model.train(training)
    return losses


def _schedule(step: int, steps: int, warm_up: int) -> float:
    rise = min(1.0, (step + 1) / warm_up) if warm_up else 1.0
    return rise * (0.1 + 0.45 * (1 + math.cos(math.pi * step / steps)))


def _save(path: Path, model: nn.Module, optimiser: torch.optim.Optimizer, losses: list[float]) -> None:
    tensors = {f"model/{name}": value.contiguous().clone() for name, value in model.state_dict().items()}
    tensors["generator"] = torch.random.get_rng_state()  # dropout draws from it
    for index, state in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser/{index}/{key}": value for key, value in state.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    save_file(tensors, temporary, metadata={"losses": json.dumps(losses)})
    os.replace(temporary, path)


def _resume(path: Path, model: nn.Module, optimiser: torch.optim.Optimizer) -> list[float]:
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        losses: list[float] = json.loads(file.metadata()["losses"])
    weights = {name[6:]: value for name, value in tensors.items() if name.startswith("model/")}
    own = model.state_dict()
    if {name: value.shape for name, value in weights.items()} != {name: value.shape for name, value in own.items()}:
        raise DataError(f"{path} is the checkpoint of another model or stage; delete it, or give another file")
    model.load_state_dict(weights)
    state: dict[int, dict[str, Any]] = {}
    for name, value in tensors.items():
        if name.startswith("optimiser/"):
            _, index, key = name.split("/")
            state.setdefault(int(index), {})[key] = value
    optimiser.load_state_dict({**optimiser.state_dict(), "state": state})
    torch.random.set_rng_state(tensors["generator"])
    return losses
