"""HaLoRA: low-rank adapters that are trained to bear the noise of the memory below them.

Wu et al., arXiv 2502.19747. Pretrained weights sit in noisy RRAM, the low-rank branch in exact SRAM. Every step draws
new noise for the RRAM, trains the branch alone, and adds mu * (||A A^T|| + ||B^T B||) to the loss: one step changes
B A by eta (B B^T G + G A^T A) to first order, so that bracket bounds how far noise in the gradient G pulls the adapter
off its ideal path. The paper's norm, mu, rank and scale of sigma are not public; they are options here.

    cim.convert_(model, chip); cim.program_(model)          # model is PEFT's, chip for example hybrid-rram-sram
    trainer = Trainer(model, ..., callbacks=[HaloraCallback(mu=1e-4)])      # or
    fit_(model, batches, steps=300, mu=1e-4)                # the same as a plain function
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import TrainerCallback

from cimphony.chip import Chip
from cimphony.errors import DataError, StateError
from cimphony.methods.training import finite, own_loss
from cimphony.nn import AnalogLayer, analog_layers, convert_, is_converted, program_, restore_
from cimphony.nn.adapters import adapter_names, lora_layers
from cimphony.nn.store import write_tensors
from cimphony.record import Draft, Record, over_chips

Norm = Literal["frobenius", "spectral"]
_ORDERS: dict[Norm, Any] = {"frobenius": "fro", "spectral": 2}
# the ablation: whether noise is drawn, whether the adapter is regularised
VARIANTS: dict[str, tuple[bool, bool]] = {
    "LoRA": (False, False),
    "noise": (True, False),
    "regulariser": (False, True),
    "HaLoRA": (True, True),
}


def factors(model: nn.Module) -> Iterator[tuple[Tensor, Tensor]]:
    """A [rank, in] and B [out, rank] of every active adapter, unscaled, as PEFT keeps them.

    Raises DataError for a model without LoRA layers.
    """
    layers = lora_layers(model)
    if not layers:
        raise DataError("the model has no LoRA layers; peft.get_peft_model(model, LoraConfig(...)) comes first")
    for module in layers.values():
        left, right = module.get_submodule("lora_A"), module.get_submodule("lora_B")
        for adapter in module.active_adapters:  # type: ignore[union-attr]
            if adapter in left._modules:
                a, b = left.get_submodule(adapter).weight, right.get_submodule(adapter).weight
                assert isinstance(a, Tensor)
                assert isinstance(b, Tensor)
                yield a.flatten(1), b.flatten(1)


def regulariser(model: nn.Module, norm: Norm = "frobenius") -> Tensor:
    """The sum of ||A A^T|| + ||B^T B|| over all adapted layers: both are [rank, rank], so it costs next to nothing.

    Args:
        norm: "spectral" is the tight bound; "frobenius" is never below it, and smooth.
    """
    if norm not in _ORDERS:
        raise DataError(f"norm = {norm!r} is not known; choose one of {', '.join(_ORDERS)}")
    order = _ORDERS[norm]
    terms = [
        torch.linalg.matrix_norm(a @ a.T, ord=order) + torch.linalg.matrix_norm(b.T @ b, ord=order)
        for a, b in factors(model)
    ]
    return torch.stack(terms).sum()


def redraw_(model: nn.Module, seed: int, step: int) -> nn.Module:
    """Write the base weights into cells anew: the chip of one training step, which no evaluation seed ever gives.

    Adapters keep what they hold. Raises StateError where the base is not on a chip.
    """
    for layer in base_layers(model):
        held = layer.tiles[0].programmed
        layer.program(seed=training_seed(seed, step), seconds=held.seconds if held else 0.0)
    return model


def training_seed(seed: int, step: int) -> int:
    """The chip of a training step, 2^62 to 2^63 - 1: evaluation takes small seeds."""
    digest = hashlib.blake2b(f"halora {seed} {step}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 2 | 1 << 62


def base_layers(model: nn.Module) -> list[AnalogLayer]:
    """The layers on the chip that are not adapters."""
    if not is_converted(model):
        raise StateError("HaLoRA draws the chip's noise: cim.convert_(model, chip) comes first, or set noise=False")
    adapters = adapter_names(model)
    return [layer for name, layer in analog_layers(model).items() if name not in adapters]


def fit_(
    model: nn.Module,
    batches: Callable[[int], Any],
    steps: int,
    *,
    lr: float = 1e-3,
    noise: bool = True,
    mu: float = 1e-4,
    norm: Norm = "frobenius",
    seed: int = 0,
    loss: Callable[[nn.Module, Any], Tensor] | None = None,
    clip: float | None = 1.0,
) -> list[float]:
    """Train the adapters of a model of PEFT's with AdamW, in place; returns the task loss of every step.

    Args:
        batches: step to batch.
        noise: draw the base's cells anew in every step; False leaves them as they are, or the model digital.
        mu: weight of the regulariser; 0 for none.
        seed: of the chips of training; what the model draws itself (dropout) comes from torch.
        loss: of a model and a batch; None takes `model(**batch).loss`.
        clip: largest norm of the gradient; None for no limit.

    The cells hold afterwards what they held before. Raises DataError for a loss that is not finite.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=lr, weight_decay=0.0)
    losses: list[float] = []
    with _kept_cells(model) as after:
        after.callback(model.train, model.training)
        after.callback(optimiser.zero_grad)
        model.train()
        for step in range(steps):
            if noise:
                redraw_(model, seed, step)
            optimiser.zero_grad()
            value = (loss or own_loss)(model, batches(step))
            losses.append(finite(value, step, f"lr = {lr:g} or the chip's noise"))
            (value + mu * regulariser(model, norm) if mu else value).backward()
            if clip is not None:
                nn.utils.clip_grad_norm_(trained, clip)
            optimiser.step()
    return losses


def _kept_cells(model: nn.Module) -> ExitStack:
    """Closed, it gives the base layers the cells that they have now."""
    after = ExitStack()
    for layer in base_layers(model) if is_converted(model) else ():
        for tiles in layer.tiles:
            after.callback(setattr, tiles, "programmed", tiles.programmed)
    return after


class HaloraCallback(TrainerCallback):
    """HaLoRA in a transformers Trainer, or any trainer that takes its callbacks.

    New noise for every optimiser step; the gradient of the regulariser joins the others just before the step, after
    clipping. At the end the cells hold what they held before.

    Args: as `fit_`.
    """

    def __init__(self, *, noise: bool = True, mu: float = 1e-4, norm: Norm = "frobenius", seed: int = 0) -> None:
        self.noise, self.mu, self.seed = noise, mu, seed
        self.norm: Norm = norm
        self._after = ExitStack()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Remember the chip."""
        if self.noise:
            base_layers(kwargs["model"])
        self._after = _kept_cells(kwargs["model"])

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Another chip."""
        if self.noise:
            redraw_(kwargs["model"], self.seed, state.global_step)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Add the gradient of mu times the regulariser."""
        if self.mu:
            (self.mu * regulariser(kwargs["model"], self.norm)).backward()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The chip as it was."""
        self._after.close()


def ablation(
    make: Callable[[], nn.Module],
    chip: Chip,
    batches: Callable[[int], Any],
    steps: int,
    metric: Callable[[nn.Module], float],
    *,
    levels: Mapping[str, Chip],
    seeds: Sequence[int],
    variants: Sequence[str] = tuple(VARIANTS),
    mu: float = 1e-4,
    seed: int = 0,
    include: Sequence[str] = ("*",),
    settings: Mapping[str, Any] | None = None,
    record_path: str | Path | None = None,
    **fit: Any,
) -> Record:
    """Where the gain comes from: plain LoRA, with noise, with the regulariser, with both, on the same chips.

    Args:
        make: gives the digital model of PEFT's as it is before training, the same each time.
        chip: trained on; variants without noise train on the same chip with ideal cells.
        metric: of a programmed model, one number.
        levels: chips to measure on, by name; every one with every seed, those that draw nothing once.
        include: what goes on the chip, as in `convert_`.
        record_path: rewritten after every number; trained adapters are kept beside it and a stopped run goes on.
        fit: further options of `fit_`.

    Returns a study record; `results["rows"]` has mean, sd, min and max over chips for each variant and level.
    """
    known = {**(settings or {}), "steps": steps, "mu": mu, "seed": seed, "include": [*include], **fit}
    draft = Draft(
        "study", "HaLoRA: where the gain comes from", record_path, settings=known, chip=chip.model_dump(mode="json"),
        results={"rows": [], "points": [], "losses": {}, "regulariser": {}},
    )  # fmt: skip
    done = {(one["variant"], one["level"], one["seed"]) for one in draft.results["points"]}
    for name in variants:
        grid = [(level, one) for level, which in levels.items() for one in (seeds if _draws(which) else seeds[:1])]
        todo = [(level, one) for level, one in grid if (name, level, one) not in done]
        if not todo:
            continue
        model, kept = make(), record_path and Path(record_path).with_suffix(f".{name}.safetensors")
        if kept and kept.is_file():
            model.load_state_dict(load_file(kept), strict=False)
        else:
            losses = _train_(model, chip, include, name, batches, steps, **fit, mu=mu, seed=seed)
            found = {"losses": losses, "regulariser": float(regulariser(model).detach())}
            draft.save(**{key: draft.results[key] | {name: one} for key, one in found.items()})
            if kept:
                trained = [(key, one) for key, one in model.named_parameters() if one.requires_grad]
                write_tensors({key: one.detach().clone() for key, one in trained}, kept, "trained weights")
        model.eval()
        for level, group in groupby(todo, key=itemgetter(0)):
            convert_(model, levels[level], include=include)
            for _, one in group:
                value = float(metric(program_(model, seed=one)))
                points = [*draft.results["points"], {"variant": name, "level": level, "seed": one, "value": value}]
                draft.save(points=points, rows=_rows(points))
            restore_(model)
    return draft.save(complete=True)


def _draws(chip: Chip) -> bool:
    """Whether two chips of this kind differ."""
    return chip.without("programming", "read", "stuck").units != chip.units


def _train_(
    model: nn.Module, chip: Chip, include: Sequence[str], variant: str, *data: Any, mu: float, seed: int, **fit: Any
) -> list[float]:
    """Train the adapters of a digital model in one variant; returns the losses. `data`: batches and steps."""
    noise, regularised = VARIANTS[variant]
    clean = chip.replace({f"units.{chip.policy['static_matmul']}.cell.device": {"kind": "ideal"}})
    program_(convert_(model, chip if noise else clean, include=include))
    with torch.random.fork_rng():
        torch.manual_seed(seed)  # dropout
        losses = fit_(model, *data, **fit, noise=noise, mu=mu * regularised, seed=seed)
    restore_(model)
    return losses


def _rows(points: list[dict[str, Any]]) -> list[dict[str, Any]]:
    groups: dict[tuple[str, str], list[float]] = {}
    for one in points:
        groups.setdefault((one["variant"], one["level"]), []).append(one["value"])
    return [{"variant": variant, "level": level, **over_chips(values)} for (variant, level), values in groups.items()]
