"""Noise-aware fine-tuning of ACAM thresholds by a differentiable match (NL-DPE, Algorithm 1).

A row matches softly, a bit is what its rows sum to, Gray code is decoded by products, and the bounds, disturbed anew in
every step, follow the gradient of the squared error to the quantised function. `LITERAL` is the released recipe: its
match S / (S + 1e-8) has a gradient within 1e-8 of an edge only, and ten steps of 1e-4 move next to nothing. `WORKING`
has a temperature that falls, steps relative to the domain, several chips a step, and keeps what is best on chips that
it did not train on.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from cimphony.chip import Acam, Thresholds
from cimphony.circuits.acam import Intervals, Table, disturb, manufacture
from cimphony.errors import DataError, StateError
from cimphony.nn.acam import Readout, acam_activations
from cimphony.nn.convert import analog_layers
from cimphony.random import NORMAL_BITS, Stream

Function = Callable[[Tensor], Tensor]
_UNSEEN = 1 << 61  # seeds of chips that choose between steps; training's begin at twice that, evaluation's at 0
_SMALL = 1e-8  # of the released match
_BEYOND = 10.0  # inputs that the released recipe puts missing bounds beyond the data


@dataclass(frozen=True)
class Recipe:
    """How thresholds are tuned."""

    steps: int
    lr: float  # of Adam, falling along a cosine
    relative: bool  # lr is a share of the domain; False: in inputs
    temperature: tuple[float, float] | None  # first and last, in shares of the domain; None: the released match
    draws: int  # chips a step
    validate: int  # chips that choose the best step
    every: int = 1  # steps between such choices
    points: int = 5000  # inputs, evenly over the domain


LITERAL = Recipe(steps=10, lr=1e-4, relative=False, temperature=None, draws=1, validate=1)
WORKING = Recipe(
    steps=100, lr=5e-4, relative=True, temperature=(4e-3, 4e-4), draws=4, validate=16, every=10, points=512
)  # fmt: skip


def tune_rows(rows: Intervals, function: Function, acam: Acam, recipe: Recipe = WORKING, *, seed: int = 0) -> Intervals:
    """Rows whose manufactured chips err less; the rows that came where no step is better.

    Args:
        rows: of one function, as compiled.
        function: what they compute, for the codes that are right.
        seed: of the chips of training.

    Raises DataError where the ACAM's thresholds are exact.
    """
    how = acam.thresholds
    if how is None:
        raise DataError("the thresholds of this ACAM are exact; there is nothing to tune (adc.thresholds: null)")
    inputs = torch.linspace(*rows.domain, recipe.points, dtype=torch.float64)
    wanted = rows.quantiser.codes(function(inputs))
    width = rows.domain[1] - rows.domain[0]
    bounds = _Bounds(rows)
    optimiser = torch.optim.Adam([bounds.low, bounds.high], lr=recipe.lr * (width if recipe.relative else 1.0))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, recipe.steps)
    best, kept = _judge(rows, acam, inputs, wanted, recipe.validate), rows
    for step in range(recipe.steps):
        part = step / max(1, recipe.steps - 1)
        optimiser.zero_grad()
        low, high = bounds.disturbed(how, recipe, 2 * _UNSEEN + (seed << 32) + step)
        (_soft_codes(inputs, low, high, rows, recipe, part) - wanted).square().mean().backward()
        optimiser.step()
        schedule.step()
        if (step + 1) % recipe.every == 0:
            now = bounds.rows()
            error = _judge(now, acam, inputs, wanted, recipe.validate)
            best, kept = (error, now) if error < best else (best, kept)
    return kept


def code_error(rows: Intervals, function: Function, acam: Acam, seeds: range, points: int = 4000) -> list[float]:
    """Root mean squared error in codes of the chips of these seeds, inputs evenly over the domain."""
    inputs = torch.linspace(*rows.domain, points, dtype=torch.float64)
    wanted = rows.quantiser.codes(function(inputs))
    return [math.sqrt(_squared(rows, acam, inputs, wanted, seed)) for seed in seeds]


def tune_acams_(model: nn.Module, recipe: Recipe = WORKING, *, seed: int = 0) -> nn.Module:
    """Tune the ACAMs behind layers and in passes of activations of a calibrated model; `program_` comes after.

    Attention's own ACAMs keep their compiled rows. Raises StateError where there is no ACAM.
    """
    passes = [one.readout for one in acam_activations(model).values() if one.readout and one.done_by is None]
    found: list[Readout] = [*passes, *(layer.readout for layer in analog_layers(model).values() if layer.readout)]
    if not found:
        raise StateError("the model has no ACAM: cim.convert_(model, chip) with an ACAM readout comes first")
    for readout in found:
        readout.tuned = None
        readout.tuned = tune_rows(readout.rows(), readout.function, readout.acam, recipe, seed=seed)
    return model


class _Bounds:
    """The bounds that are trained; cells that match everything on a side, and rows that never match, stay so."""

    def __init__(self, rows: Intervals) -> None:
        self.compiled = rows
        self.low = rows.low.double().requires_grad_()
        self.high = rows.high.double().requires_grad_()

    def disturbed(self, how: Thresholds, recipe: Recipe, seed: int) -> tuple[Tensor, Tensor]:
        """Lower and upper bounds [draw, row] as some chips hold them."""
        sides = []
        for which, bounds in (("low", self.low), ("high", self.high)):
            free = bounds.detach().isfinite()[0]
            made = bounds.expand(recipe.draws, -1)[:, free]
            noise = [_normal(seed, f"{which}, {when}", made) for when in ("programming", "read")]
            held = bounds.detach().expand(recipe.draws, -1).clone()
            if recipe.temperature is None:
                ends = self.compiled.domain
                held = held.clamp(ends[0] - _BEYOND, ends[1] + _BEYOND)
            held[:, free] = disturb(how, made, self.compiled.domain, noise[0], noise[1])
            sides.append(held)
        return sides[0], sides[1]

    def rows(self) -> Intervals:
        """As they are now."""
        low, high = (side.detach().float().clone() for side in (self.low, self.high))
        return replace(self.compiled, low=low, high=high)


def _normal(seed: int, purpose: str, like: Tensor) -> Tensor:
    drawn = torch.from_numpy(Stream(seed, "threshold tuning", purpose).normal(0, like.numel()))
    return drawn.to(torch.float64).mul_(2.0**-NORMAL_BITS).view(like.shape)


def _soft_codes(inputs: Tensor, low: Tensor, high: Tensor, rows: Intervals, recipe: Recipe, part: float) -> Tensor:
    """Codes [draw, input] that bounds [draw, row] have a gradient of."""
    x = inputs.float()[:, None]
    above, below = x - low.float()[:, None], high.float()[:, None] - x  # [draw, input, row]
    member = torch.nn.functional.one_hot(rows.bit, rows.quantiser.bits).float()
    if recipe.temperature is None:
        summed = (torch.relu(above) * torch.relu(below)) @ member
        bits = summed / (summed + _SMALL)
    else:
        first, last = recipe.temperature
        width = first * (last / first) ** part * (rows.domain[1] - rows.domain[0])
        bits = ((torch.sigmoid(above / width) * torch.sigmoid(below / width)) @ member).clamp(max=1)
    code = torch.zeros_like(bits[..., 0])
    bit = torch.zeros_like(code)
    for index in reversed(range(rows.quantiser.bits)):
        own = bits[..., index]
        if rows.gray and recipe.temperature is None:
            own = (own - bit).square()
        elif rows.gray:
            own = own + bit - 2 * own * bit  # the exclusive or's mean, were the two independent
        bit = own
        code = code + bit * 2.0**index
    return code


def _judge(rows: Intervals, acam: Acam, inputs: Tensor, wanted: Tensor, chips: int) -> float:
    return sum(_squared(rows, acam, inputs, wanted, _UNSEEN + chip) for chip in range(chips)) / chips


def _squared(rows: Intervals, acam: Acam, inputs: Tensor, wanted: Tensor, seed: int) -> float:
    held = Table(manufacture(rows, acam, seed=seed, name="threshold tuning"))
    return float((held.codes(inputs.float()) - wanted).square().mean())
