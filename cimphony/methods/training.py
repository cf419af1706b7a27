"""Training a model step by step, resumed from a checkpoint bit for bit."""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress
from safetensors import safe_open
from torch import Tensor, nn

from cimphony.errors import DataError
from cimphony.nn.store import write_tensors

Batch = Mapping[str, Any]


def tune_(
    model: nn.Module,
    batches: Callable[[int], Batch],
    steps: int,
    *,
    lr: float = 6e-4,
    warm_up: int = 0,
    weight_decay: float = 0.1,
    betas: tuple[float, float] = (0.9, 0.95),
    loss: Callable[[nn.Module, Any], Tensor] | None = None,
    before: Callable[[int], Any] | None = None,
    rates: Mapping[str, float] | None = None,
    checkpoint: str | Path | None = None,
    save_every: int = 100,
    progress: bool = False,
) -> list[float]:
    """Train with AdamW, weight decay on matrices only; returns the loss of every step.

    Args:
        batches: step to batch, with labels. It alone decides the data, so that a resumed run sees what another would.
        warm_up: steps over which the rate rises; then it falls to a tenth along a cosine.
        loss: of a model and a batch; None takes `model(**batch).loss`.
        before: called with the number of each step before it.
        rates: others than `lr`, without decay, for parameters whose names end so.
        checkpoint: a file that the run is saved to and resumed from.

    Raises DataError where the checkpoint is another model's, or a loss is not finite.
    """
    parameters = [one for one in model.parameters() if one.requires_grad]
    optimiser = torch.optim.AdamW(_groups(model, weight_decay, lr, rates or {}), betas=betas)
    losses, _ = resume(checkpoint, model, optimiser)
    training = model.training
    model.train()
    with Progress(disable=not progress) as bar:
        task = bar.add_task("training", total=steps, completed=len(losses))
        for step in range(len(losses), steps):
            for group in optimiser.param_groups:
                group["lr"] = group["initial_lr"] * _schedule(step, steps, warm_up)
            if before is not None:
                before(step)
            optimiser.zero_grad()
            value = own_loss(model, batches(step)) if loss is None else loss(model, batches(step))
            losses.append(finite(value, step, f"lr = {lr:g}, or raise warm_up"))
            value.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimiser.step()
            bar.update(task, advance=1, description=f"training, loss {losses[-1]:.3f}")
            if checkpoint and ((step + 1) % save_every == 0 or step + 1 == steps):
                save_checkpoint(checkpoint, model, optimiser, losses)
    model.train(training)
    return losses


def _groups(model: nn.Module, weight_decay: float, lr: float, rates: Mapping[str, float]) -> list[dict[str, Any]]:
    """Matrices, the rest, and parameters with a rate of their own."""
    found: dict[tuple[float, float], list[nn.Parameter]] = {(weight_decay, lr): [], (0.0, lr): []}
    for name, one in model.named_parameters():
        if one.requires_grad:
            own = next((rate for ending, rate in rates.items() if name.endswith(ending)), None)
            key = (weight_decay if one.dim() > 1 and own is None else 0.0, lr if own is None else own)
            found.setdefault(key, []).append(one)
    return [{"params": some, "weight_decay": decay, "initial_lr": rate} for (decay, rate), some in found.items()]


def own_loss(model: nn.Module, batch: Any) -> Tensor:
    """The loss that a model gives with its outputs."""
    found = getattr(model(**batch) if isinstance(batch, Mapping) else model(batch), "loss", None)
    if found is None:
        raise DataError("the model gives no loss: add labels to the batch, or pass loss=lambda model, batch: ...")
    return found


def finite(loss: Tensor, step: int, what: str) -> float:
    """The loss of a step as a number; DataError where it is none, with what to lower."""
    found = float(loss.detach())
    if not math.isfinite(found):
        raise DataError(f"the loss of step {step} is {found}; lower {what}")
    return found


def _schedule(step: int, steps: int, warm_up: int) -> float:
    rise = min(1.0, (step + 1) / warm_up) if warm_up else 1.0
    return rise * (0.1 + 0.45 * (1 + math.cos(math.pi * step / steps)))


def save_checkpoint(
    path: str | Path,
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    losses: list[float],
    others: Mapping[str, Tensor] | None = None,
) -> None:
    """Weights, the optimiser's state, torch's generator, the losses so far and other tensors, written atomically."""
    tensors = {f"other/{name}": value for name, value in (others or {}).items()}
    tensors |= {f"model/{name}": value.contiguous().clone() for name, value in model.state_dict().items()}
    tensors["generator"] = torch.random.get_rng_state()  # dropout draws from it
    for index, state in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser/{index}/{key}": value for key, value in state.items()}
    write_tensors(tensors, path, "checkpoint", {"losses": json.dumps(losses)})


def resume(
    path: str | Path | None, model: nn.Module, optimiser: torch.optim.Optimizer
) -> tuple[list[float], dict[str, Tensor]]:
    """Take up a checkpoint: the losses so far and the other tensors; nothing where there is none yet."""
    if path is None or not Path(path).is_file():
        return [], {}
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
    return losses, {name[6:]: value for name, value in tensors.items() if name.startswith("other/")}
