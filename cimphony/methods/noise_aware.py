"""Noise-aware fine-tuning: weights trained on a chip that is manufactured anew for every step.

    cim.convert_(model, chip)
    with cim.calibrate(model):
        model(**batch)
    fit_(model, batches, steps=200)
    cim.program_(model, seed=0)                    # a chip that training never saw

For any chip: forward through its noisy weights and converters, gradients as if they were ideal. With `ranges` the ends
of ACAM ranges are trained along, as clipping levels are in quantisation-aware training. The loss is the task's
plus `peak` times the largest |weight|, since one scale maps weights to conductances and the largest decides it, plus
`error` times the largest error of a programmed weight (NL-DPE, equation 8). Nothing is measured on the chip that the
model ends up on.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from cimphony.errors import StateError
from cimphony.methods.training import Batch, own_loss, tune_
from cimphony.nn import analog_layers, program_
from cimphony.nn.acam import Readout, acam_activations

_TRAINING = 1 << 62  # seeds of the chips of training; evaluation takes small ones
_ENDS = "acam_ends"
REACH = 6.0  # rate of ranges times the steps: our choice, on training data (docs/nl_dpe.md)


def fit_(
    model: nn.Module,
    batches: Callable[[int], Batch],
    steps: int,
    *,
    lr: float = 5e-5,
    peak: float = 1e-2,
    error: float = 0.0,
    ranges: float = 0.0,
    seed: int = 0,
    loss: Callable[[nn.Module, Any], Tensor] | None = None,
    checkpoint: str | Path | None = None,
    save_every: int = 100,
    progress: bool = False,
) -> list[float]:
    """Fine-tune a converted and calibrated model in place, without weight decay; returns the loss of every step.

    Afterwards `program_` puts the model on a chip. Do not calibrate anew: weights have come to fit the ranges that
    they were trained with.

    Args:
        batches: step to batch, with labels. It alone decides the data.
        lr: at first; it falls along a cosine.
        peak, error: weights of the two regularisers; the published recipe has 0.01 for the first.
        ranges: rate at which the ends of ACAM ranges are trained too, relative to them; with REACH / steps one that
            always goes one way shrinks 27 times, since the rate falls along a cosine. An end weighs what it cuts off
            (as in PACT, arXiv 1805.06085) against noise, which grows with the range. 0: ranges stay as calibrated.
        seed: of the chips of training; what the model draws itself (dropout) comes from torch.
        loss: of a model and a batch, the regularisers apart; None takes `model(**batch).loss`.
        checkpoint: a file that the run is saved to and resumed from.

    Raises StateError where no layer is on a chip, or ranges are missing.
    """
    if not analog_layers(model):
        raise StateError("fit_: no layer of the model is on a chip: cim.convert_(model, chip) comes first")
    task = loss or own_loss

    def penalised(one: nn.Module, batch: Batch) -> Tensor:
        value = task(one, batch)
        value = value + peak * largest_weight(one) if peak else value
        return value + error * largest_error(one) if error else value

    with _trained(model, on=ranges > 0) as move:

        def before(step: int) -> None:
            move()
            program_(model, seed=training_seed(seed, step))

        return tune_(
            model, batches, steps, lr=lr, weight_decay=0.0, betas=(0.9, 0.999), loss=penalised, before=before,
            rates={_ENDS: ranges}, checkpoint=checkpoint, save_every=save_every, progress=progress,
        )  # fmt: skip


@contextmanager
def _trained(model: nn.Module, *, on: bool) -> Iterator[Callable[[], None]]:
    """Give the ends of ACAM ranges parameters, logarithms of how much they have moved; what is yielded moves them."""
    layers = [layer for layer in analog_layers(model).values() if layer.readout is not None]
    passes = [one for one in acam_activations(model).values() if one.readout is not None and one.done_by is None]
    held: list[tuple[nn.Module, Readout, Tensor]] = []
    for module in (*layers, *passes) if on else ():
        readout = cast("Readout", module.readout)
        if readout.span is None or readout.tuned is not None:
            raise StateError(f"fit_: the ACAM of {readout.name} has no range to train: calibrate, or ranges=0")
        module.register_parameter(_ENDS, nn.Parameter(torch.zeros(2)))
        held.append((module, readout, torch.tensor(readout.span)))

    def move() -> None:
        for module, readout, start in held:
            readout.ends = start * cast("Tensor", module.get_parameter(_ENDS)).exp()
            readout.span = tuple(readout.ends.tolist())

    try:
        yield move
        move()
    finally:
        for module, readout, _ in held:
            readout.ends = None
            delattr(module, _ENDS)


def training_seed(seed: int, step: int) -> int:
    """The chip of a training step, from 2^62 on."""
    return _TRAINING + (seed << 32) + step


def largest_weight(model: nn.Module) -> Tensor:
    """Largest |weight| over all layers on the chip."""
    return torch.stack([layer.weight.abs().amax() for layer in analog_layers(model).values()]).amax()


def largest_error(model: nn.Module) -> Tensor:
    """Largest |held - weight| over all programmed layers.

    Its gradient is that of the scale: with the same draw a layer's errors grow with its largest weight.
    """
    found = []
    for layer in analog_layers(model).values():
        for tiles, matrix in zip(layer.tiles, layer.matrices(), strict=True):
            if tiles.programmed is not None:
                size = matrix.abs().amax()
                error = (tiles.programmed.weights.to(matrix.dtype) - matrix.detach()).abs().amax()
                found.append(error * (size / size.detach().clamp(min=1e-30)))
    return torch.stack(found).amax()
