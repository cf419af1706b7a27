"""ACAMs behind layers and in place of activations: what follows a layer is found by running the model.

A layer whose output goes into an activation and nowhere else is read by an ACAM that holds the activation; any other
by one that holds the identity. Both quantise. An activation that no layer takes over is a pass of its own where the
chip has a unit for it, else digital.
"""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from cimphony.chip import Acam
from cimphony.circuits.acam import Intervals, Table, compile_function, manufacture
from cimphony.errors import StateError

_ELEMENTWISE = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Mish, nn.Sigmoid, nn.Tanh, nn.Softplus, nn.Hardtanh,
    nn.Hardswish, nn.Hardsigmoid,
)  # fmt: skip
_MOVING = 0.95  # weight of what was seen before, for ranges that follow batches


def identity(values: Tensor) -> Tensor:
    """What an ACAM computes that only converts."""
    return values


class Readout:
    """One function in ACAMs of one place in the model: range by calibration, rows, one chip's draw of them."""

    def __init__(self, acam: Acam, name: str, function: Callable[[Tensor], Tensor] = identity) -> None:
        self.acam, self.name, self.function = acam, name, function
        self.follows: str | None = None  # activation that is taken over
        self.span: tuple[float, float] | None = None  # inputs
        self.ends: Tensor | None = None  # of the span while they are trained: [low, high], with gradients
        self.table: Table | None = None
        self.seed: int | None = None
        self.tuned: Intervals | None = None  # rows that a method chose in place of the compiled ones
        self.watching = False

    def start_calibration(self) -> None:
        """Forget and begin to watch."""
        self.span, self.table, self.tuned, self.watching = None, None, None, True
        self.follows, self.function = None, self.function if self.follows is None else identity

    def finish_calibration(self, *, completed: bool) -> None:
        """Stop to watch; forget what was seen where it did not complete."""
        self.watching, self.span = False, self.span if completed else None

    def observe(self, values: Tensor) -> None:
        """Widen the range to values of any shape, or let it follow them."""
        if not values.numel():
            return
        low, high = self._ends(values.detach().float().flatten())
        if self.span is None:
            self.span = (low, high)
        elif self.acam.range == "moving":
            self.span = (
                _MOVING * self.span[0] + (1 - _MOVING) * low,
                _MOVING * self.span[1] + (1 - _MOVING) * high,
            )
        else:
            self.span = (min(self.span[0], low), max(self.span[1], high))

    def widen(self, others: Iterable["Readout"]) -> Self:
        """Take the widest range of others."""
        spans = [one.span for one in others if one.span is not None]
        self.span = (min(low for low, _ in spans), max(high for _, high in spans)) if spans else None
        return self

    def _ends(self, values: Tensor) -> tuple[float, float]:
        if self.acam.quantile == 1:
            return float(values.min()), float(values.max())
        rank = max(1, round((1 - self.acam.quantile) * values.numel()))
        return float(values.kthvalue(rank).values), float(values.kthvalue(values.numel() + 1 - rank).values)

    def rows(self) -> Intervals:
        """The rows before they are manufactured."""
        if self.tuned is not None:
            return self.tuned
        if self.span is None:
            raise StateError(
                f"the ACAM of {self.name} has learned no range: run a few batches in 'with cim.calibrate(model):' "
                "before program_, with data that reaches it"
            )
        low, high = self.span
        span = (low, high if high > low else low + 1e-6 + abs(low) * 1e-3)
        gray = self.acam.code == "gray"
        return compile_function(self.function, span, self.acam.bits, gray=gray, rows=self.acam.rows)

    def program(self, seed: int, rewrites: int = 0, columns: int = 1) -> None:
        """One manufactured chip; `columns` of values where each may have errors of its own."""
        name = f"{self.name}/acam" + (f"#{rewrites}" if rewrites else "")
        how = self.acam.thresholds
        units = columns if how is not None and how.drawn == "column" else 1
        self.seed, self.table = seed, Table(manufacture(self.rows(), self.acam, seed=seed, name=name, units=units))

    def __call__(self, values: Tensor) -> Tensor:
        """Values [...] as their codes stand for them, same dtype; gradients are those of the function."""
        if self.watching:
            self.observe(values)
            return values
        if self.table is None:
            raise StateError(f"the ACAM of {self.name} is not programmed: run cim.program_(model, seed=...)")
        if self.table.breaks.device != values.device:
            self.table.to(values.device)
        found = self.table(values.detach()).to(values.dtype)
        if not (torch.is_grad_enabled() and values.requires_grad):
            return found
        if self.ends is None:
            ideal = self.function(values)
            return ideal + (found - ideal).detach()
        low, high = self.ends.to(values.dtype)
        ideal = self.function(values.clamp(low, high))
        return ideal + (found - ideal).detach() * ((high - low) / (high - low).detach())  # errors grow with the range

    def describe(self) -> dict[str, Any]:
        """What is applied, for the summary and the records."""
        noisy = self.acam.thresholds
        return {
            "function": getattr(self.function, "__name__", type(self.function).__name__),
            "follows": self.follows,
            "bits": self.acam.bits,
            "code": self.acam.code,
            "span": self.span,
            "rows": None if self.span is None else sum(self.rows().rows),
            "noise_scale": None if noisy is None else noisy.device.scale,
            "seed": self.seed,
        }


class AcamActivation(nn.Module):
    """An activation beside its own class: done by the layer before, or by a pass of its own, or digital."""

    readout: Readout | None  # a pass of its own
    done_by: str | None  # layer whose ACAM holds this activation
    watching: bool

    def forward(self, *inputs: Any, **options: Any) -> Tensor:
        """As the digital activation is called."""
        if self.watching:
            outputs = super().forward(*inputs, **options)
            if self.readout is not None:
                self.readout.observe(inputs[0])
            return outputs
        if self.done_by is not None:
            return inputs[0]
        return super().forward(*inputs, **options) if self.readout is None else self.readout(inputs[0])


_CLASSES: dict[type, type] = {}


def attach_activations(model: nn.Module, acam: Acam, *, own_passes: bool) -> None:
    """Make every activation module ready to be taken over, or to be a pass of its own."""
    for name, module in list(model.named_modules()):
        kind = type(module)
        if kind not in _ELEMENTWISE and kind.__module__ != "transformers.activations":
            continue
        digital = copy.deepcopy(module)
        if hasattr(digital, "inplace"):
            digital.inplace = False  # type: ignore
        made = _CLASSES.setdefault(kind, type(f"Acam{kind.__name__}", (AcamActivation, kind), {"__module__": __name__}))
        module.__class__ = made
        module.readout = Readout(acam, name, digital) if own_passes else None  # type: ignore[assignment]
        module.done_by, module.watching, module.digital = None, False, [digital]  # type: ignore[assignment]


def detach_activations(model: nn.Module) -> None:
    """Give activations their own classes back."""
    for module in acam_activations(model).values():
        digital = type(module).__mro__[2]
        for name in ("readout", "done_by", "watching", "digital"):
            delattr(module, name)
        module.__class__ = digital


def acam_activations(model: nn.Module) -> dict[str, AcamActivation]:
    """Activations that were made ready, by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, AcamActivation)}


def fuse(model: nn.Module, layer: str, activation: str) -> None:
    """Let the ACAM of a layer hold the activation that follows it."""
    module: Any = model.get_submodule(activation)
    readout: Readout = model.get_submodule(layer).readout  # type: ignore[assignment]
    readout.follows, readout.function = activation, module.digital[0]
    module.done_by = layer


def acam_state(model: nn.Module, layers: dict[str, Any]) -> dict[str, Any]:
    """What calibration taught the ACAMs, as plain data, for `restore_acams`."""
    behind = {name: layer for name, layer in layers.items() if layer.readout is not None}
    passes = {name: one.readout for name, one in acam_activations(model).items() if one.readout is not None}
    readouts = passes | {name: layer.readout for name, layer in behind.items()}
    return {
        "tuned": {
            name: [one.tuned.low.tolist(), one.tuned.high.tolist()] for name, one in readouts.items() if one.tuned
        },
        "layers": {name: [layer.readout.span, layer.readout.follows] for name, layer in behind.items()},
        "blocks": {name: [[one.span for one in part.blocks] for part in layer.tiles] for name, layer in behind.items()},
        "passes": {name: readout.span for name, readout in passes.items()},
    }


def restore_acams(model: nn.Module, layers: dict[str, Any], state: dict[str, Any]) -> None:
    """Give the ACAMs of a converted model the ranges and functions they had."""
    for name, (span, follows) in state["layers"].items():
        if follows is not None:
            fuse(model, name, follows)
        layers[name].readout.span = span and tuple(span)
        for part, spans in zip(layers[name].tiles, state["blocks"][name], strict=True):
            part.blocks = [Readout(part.unit.acam, part.block_name(index)) for index in range(len(spans))]
            for readout, seen in zip(part.blocks, spans, strict=True):
                readout.span = tuple(seen)
    for name, span in state["passes"].items():
        acam_activations(model)[name].readout.span = span and tuple(span)  # type: ignore[union-attr]
    for name, (low, high) in state.get("tuned", {}).items():
        readout: Any = layers[name].readout if name in layers else acam_activations(model)[name].readout
        readout.tuned = replace(readout.rows(), low=torch.tensor(low), high=torch.tensor(high))


class _Uses(TorchFunctionMode):
    """Counts what takes the output of a layer, other than the activation modules that are watched."""

    def __init__(self) -> None:
        super().__init__()
        self.outputs: dict[int, tuple[str, Tensor]] = {}  # by identity; held, so that identities stay unique
        self.fed: dict[str, set[str]] = {}  # layer: activations
        self.others: set[str] = set()  # layers whose output went elsewhere
        self.unfed: set[str] = set()  # activations that also took something else
        self.inside = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not self.inside and getattr(func, "__name__", "") != "__get__":
            for one in args:
                for value in one if isinstance(one, (list, tuple)) else (one,):
                    if id(value) in self.outputs:
                        self.others.add(self.outputs[id(value)][0])
        return func(*args, **(kwargs or {}))


@contextmanager
def follow(model: nn.Module, layers: Mapping[str, nn.Module]) -> Iterator[None]:
    """Watch forward passes of a digital model and fuse activations into the layers they follow.

    Fused is what always takes a layer's output, the very tensor, where nothing else does.
    """
    uses, hooks = _Uses(), []
    taken = acam_activations(model)

    def produced(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
            uses.outputs[id(output)] = (name, output)

        return hook

    def enters(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any) -> None:
            source = uses.outputs.get(id(inputs[0])) if inputs else None
            uses.unfed.add(name) if source is None else uses.fed.setdefault(source[0], set()).add(name)
            uses.inside = True

        return hook

    def leaves(module: nn.Module, inputs: Any, output: Any) -> None:
        uses.inside = False
        uses.outputs.pop(id(output), None)  # in place: what goes on is the activation's output

    for name, layer in layers.items():
        hooks.append(layer.register_forward_hook(produced(name)))
    for name, module in taken.items():
        module.done_by, module.watching = None, True
        hooks += [module.register_forward_pre_hook(enters(name)), module.register_forward_hook(leaves)]
    hooks.append(model.register_forward_hook(lambda *_: uses.outputs.clear()))
    try:
        with uses:
            yield
    finally:
        for hook in hooks:
            hook.remove()
        for module in taken.values():
            module.watching = False
    for layer, names in uses.fed.items():
        sources = [source for source, fed in uses.fed.items() if names & fed]
        if len(names) == 1 and len(sources) == 1 and layer not in uses.others and not names & uses.unfed:
            fuse(model, layer, next(iter(names)))
