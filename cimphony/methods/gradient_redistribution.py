"""Gradient redistribution: which singular ranks of a layer deserve the reliable cells.

HyFlexPIM (ISCA 2025), section 4: factor every linear layer by SVD, keep the rank at which the factors hold as many
weights as the layer did, fine-tune briefly so that importance gathers in few ranks, order the ranks by the gradient
of the loss with respect to their singular values, and put the first few per cent into SLC cells, the rest into MLC.

    decompose_(model)
    GradientRedistribution(epochs=1, lr=2e-5).fit(model, loader)
    fuse_(model)
    cim.convert_(model, chip); assign_(model, slc_rate=0.1); cim.program_(model)
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

import torch
from rich.progress import Progress
from torch import Tensor, nn

from cimphony.chip import MODES
from cimphony.errors import DataError, StateError
from cimphony.methods.training import finite, own_loss, resume, save_checkpoint
from cimphony.nn.layers import AnalogLayer, place_ranks
from cimphony.nn.low_rank import RANKS, FusedLowRank, LowRankLinear, hard_threshold, replace_module, weight_of
from cimphony.nn.programmed import Assignment
from cimphony.random import Stream

Selection = Literal["gradient", "sensitivity", "singular_value", "magnitude", "random"]


def decompose_(
    model: nn.Module,
    rank: Literal["hard"] | int | float = "hard",
    *,
    include: Sequence[str] = ("*",),
    exclude: Sequence[str] = (),
) -> nn.Module:
    """Replace linear layers (nn.Linear, transformers' Conv1D) by LowRankLinear, in place.

    Args:
        rank: "hard" keeps the number of weights, k = m n / (m + n); an integer is the rank itself; a fraction of 1 is
            that share of the full rank (1.0: nothing is truncated).
        include, exclude: wildcards on module names.

    Raises DataError where no layer matches or the rank does not fit one.
    """
    chosen = decomposable(model, include, exclude)
    if not chosen:
        raise DataError(f"{type(model).__name__} has no linear layer that include={list(include)} leaves to decompose")
    for name, (weight, bias) in chosen.items():
        replace_module(model, name, LowRankLinear.from_weight(weight, bias, _rank(rank, weight)))
    return model


def decomposable(
    model: nn.Module, include: Sequence[str] = ("*",), exclude: Sequence[str] = ()
) -> dict[str, tuple[Tensor, Tensor | None]]:
    """Weight [out, in] and bias of every layer that `decompose_` would take, by name."""
    found: dict[str, tuple[Tensor, Tensor | None]] = {}
    for name, module in model.named_modules():
        weight, bias = weight_of(module), getattr(module, "bias", None)
        left_out = any(fnmatchcase(name, pattern) for pattern in exclude)
        if weight is not None and not left_out and any(fnmatchcase(name, pattern) for pattern in include):
            found[name] = weight, bias if isinstance(bias, Tensor) else None
    return found


def _rank(rank: Literal["hard"] | int | float, weight: Tensor) -> int:
    rows, columns = weight.shape
    if rank == "hard":
        return hard_threshold(rows, columns)
    if isinstance(rank, float):
        if not 0 < rank <= 1:
            raise DataError(f"rank = {rank} is not allowed: a share of the full rank is above 0 and at most 1")
        return max(1, round(rank * min(rows, columns)))
    return int(rank)


def fuse_(model: nn.Module) -> nn.Module:
    """Multiply the singular values into V^T for inference: every LowRankLinear becomes two linear layers, in place.

    The configuration of a Hugging Face model takes down the ranks, so that `save_pretrained` writes a folder that
    `cim.load_model` reads (transformers alone would not know the layers).
    """
    layers = _low_rank_layers(model)
    for name, layer in layers.items():
        replace_module(model, name, FusedLowRank(layer))
    config = getattr(model, "config", None)
    if config is not None:
        setattr(config, RANKS, {name: layer.sigma.numel() for name, layer in layers.items()})
    return model


def _low_rank_layers(model: nn.Module) -> dict[str, LowRankLinear]:
    layers = {name: module for name, module in model.named_modules() if isinstance(module, LowRankLinear)}
    if not layers:
        raise StateError("the model has no low-rank layers: decompose_(model) comes first")
    return layers


@dataclass
class GradientRedistribution:
    """Fine-tuning that gathers and measures importance.

    Args:
        epochs: passes over the data; the paper takes 1 to 3.
        lr: learning rate of AdamW.
        statistic: "mean" averages |dL/dsigma| over all steps; "last" keeps the last step only, as a comparison.
    """

    epochs: int = 1
    lr: float = 2e-5
    weight_decay: float = 0.0
    statistic: Literal["mean", "last"] = "mean"
    losses: list[float] = field(default_factory=list)  # of every step, filled by fit

    def fit(
        self,
        model: nn.Module,
        data: Any,
        *,
        loss: Callable[[nn.Module, Any], Tensor] | None = None,
        checkpoint: str | Path | None = None,
        progress: bool = True,
    ) -> nn.Module:
        """Fine-tune a decomposed model and leave mean |dL/dsigma| in every layer's `gradient`.

        Args:
            data: a loader of batches, or a transformers Trainer (which brings its own data and optimiser).
            loss: of a model and a batch; None takes `model(**batch).loss`.
            checkpoint: a file written after every epoch; a run that finds it goes on from there.
        """
        watch = _Watch(_low_rank_layers(model), self.statistic)
        if hasattr(data, "add_callback") and hasattr(data, "train"):
            _train_with(data, watch)
            watch.finish()
            return model
        optimiser = torch.optim.AdamW(model.parameters(), lr=self.lr, weight_decay=self.weight_decay)
        losses, found = resume(checkpoint, model, optimiser)
        self.losses, first = self.losses + losses, watch.resume(found) if found else 0
        with ExitStack() as after, Progress(disable=not progress) as bar:
            after.callback(model.train, model.training)
            after.callback(optimiser.zero_grad)
            model.train()
            for epoch in range(first, self.epochs):
                for batch in bar.track(data, description=f"epoch {epoch + 1} of {self.epochs}"):
                    optimiser.zero_grad()
                    value = (loss or own_loss)(model, batch)
                    value.backward()
                    self.losses.append(finite(value, watch.steps, f"lr = {self.lr:g}"))
                    watch.step()
                    optimiser.step()
                if checkpoint:
                    save_checkpoint(checkpoint, model, optimiser, self.losses, watch.state(epoch + 1))
        watch.finish()
        return model


class _Watch:
    """Sums |dL/dsigma| over steps."""

    def __init__(self, layers: dict[str, LowRankLinear], statistic: str) -> None:
        self.layers, self.last_only, self.steps = layers, statistic == "last", 0
        self.sums = {name: torch.zeros_like(layer.sigma, dtype=torch.float64) for name, layer in layers.items()}

    def step(self) -> None:
        for name, layer in self.layers.items():
            gradient = layer.sigma.grad
            if gradient is not None:
                self.sums[name] = gradient.abs().double() + (0.0 if self.last_only else self.sums[name])
        self.steps += 1

    def state(self, epochs: int) -> dict[str, Tensor]:
        """For a checkpoint after so many epochs."""
        return self.sums | {"epochs, steps": torch.tensor([epochs, self.steps])}

    def resume(self, state: dict[str, Tensor]) -> int:
        """Go on from a checkpoint; returns the epochs that are done."""
        epochs, self.steps = state.pop("epochs, steps").tolist()
        self.sums = state
        return epochs

    def finish(self) -> None:
        if self.steps == 0:
            raise DataError("no step was taken: the loader gave no batch, or the checkpoint is of a finished run")
        for name, layer in self.layers.items():
            layer.gradient.copy_(self.sums[name] / (1 if self.last_only else self.steps))


def _train_with(trainer: Any, watch: _Watch) -> None:
    """Run a transformers Trainer with the watch in it."""
    from transformers import TrainerCallback

    class Callback(TrainerCallback):
        def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            watch.step()

    callback = Callback()
    trainer.add_callback(callback)
    try:
        trainer.train()
    finally:
        trainer.remove_callback(callback)


def assign_(model: nn.Module, slc_rate: float, by: Selection = "gradient", *, seed: int = 0) -> nn.Module:
    """Choose the cell mode of every rank (or output column) of a converted model, in place.

    `by`: "gradient", |dL/dsigma| as the paper has it; "sensitivity", |sigma dL/dsigma|, the change of the loss by the
    same relative error of every rank (cells of a larger rank err by more); "singular_value", sigma; "magnitude", the
    sum of |weights| of both factors; "random", drawn with `seed`.

    The first `slc_rate` of the ranks go to SLC: a rank's row of diag(sigma) V^T and its column of U share a mode. A
    layer that was not decomposed is ordered by the magnitude of its output columns, whatever `by` says of the others,
    or at random. The chip the model holds gets this rate too, so that cost reads the same.
    Programming comes after.
    """
    if not 0 <= slc_rate <= 1:
        raise DataError(f"slc_rate = {slc_rate} is not allowed: it is a share, 0 to 1")
    _change_rate(model, slc_rate)
    pairs = {name: module for name, module in model.named_modules() if isinstance(module, FusedLowRank)}
    inner = {f"{name}.{side}" for name in pairs for side in ("left", "right")}
    for name, pair in pairs.items():
        place_ranks(pair, _importance(pair, name, by, seed), slc_rate)
    for name, layer in model.named_modules():
        if isinstance(layer, AnalogLayer) and name not in inner:
            norms = layer.matrices()[0].detach().double().norm(dim=0)
            order = torch.argsort(_drawn(norms, name, seed) if by == "random" else norms, descending=True, stable=True)
            for tiles in layer.tiles:
                tiles.assign(Assignment.first_in_slc("column", order, slc_rate))
    return model


def _change_rate(model: nn.Module, slc_rate: float) -> None:
    """The SLC rate of the chip that the model's tiles hold."""
    tiles = [one for layer in model.modules() if isinstance(layer, AnalogLayer) for one in layer.tiles]
    if not tiles:
        raise StateError("assign_: the model is not converted; cim.convert_(model, chip) comes first")
    first = tiles[0]
    if len(first.unit.cell.bits) < len(MODES):
        raise DataError(f"chip {first.chip.name!r} has one cell mode; assign_ needs a chip with SLC and MLC")
    chip = first.chip.replace({f"units.{first.unit_name}.cell.slc_rate": slc_rate})
    for one in tiles:
        one.use(chip)


def _importance(pair: FusedLowRank, name: str, by: Selection, seed: int) -> Tensor:
    if by in ("gradient", "sensitivity"):
        if not bool(pair.gradient.any()):
            raise StateError(
                f"layer {name} has no gradient statistics: run GradientRedistribution(...).fit before fuse_"
            )
        return pair.gradient if by == "gradient" else pair.gradient * pair.sigma.abs()
    if by == "singular_value":
        return pair.sigma.abs()
    if by == "magnitude":
        return pair.right.weight.detach().abs().sum(dim=1) + pair.left.weight.detach().abs().sum(dim=0)
    return _drawn(pair.sigma, name, seed)


def _drawn(like: Tensor, name: str, seed: int) -> Tensor:
    return torch.from_numpy(Stream(seed, name, "random assignment").uniform(0, like.numel()))


def gradient_share(layer: LowRankLinear | FusedLowRank, top: float) -> float:
    """Share of a layer's total |gradient| that its most important `top` (0 to 1) of ranks hold."""
    ordered = layer.gradient.sort(descending=True).values
    total = float(ordered.sum())
    return float(ordered[: max(1, round(top * ordered.numel()))].sum()) / total if total else 0.0
