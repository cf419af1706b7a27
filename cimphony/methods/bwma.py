"""BWMA (arXiv 2508.21524): convolutional networks of binary weights and activations of a few bits, on 1-bit cells.

A layer computes alpha (b * q) + beta (1 * q), times the step of its activations: b are the signs of the weights, q
the codes of the staircase. On a chip the cells hold (b + 1) / 2, one dummy column of ones gives the sum of q, and
alpha, beta, bias and a folded batch normalisation are the digital epilogue.

    binarise_(model, bits=4); calibrate_(model, images); ...train, anneal_...; fold_batchnorm_(model)
    deploy_(model.eval(), chip, seed=0)
"""

import copy
from collections.abc import Sequence
from fnmatch import fnmatchcase
from functools import partial
from typing import cast

import torch
from torch import Tensor, fx, nn

from cimphony.chip import Chip, CrossbarUnit
from cimphony.circuits import largest_sum, write
from cimphony.errors import ChipError, DataError, StateError
from cimphony.methods.bwma_activations import Form, Staircase
from cimphony.methods.bwma_layers import BinaryArray, BinaryConv2d, BinaryLayer, BinaryLinear
from cimphony.methods.bwma_weights import Grain, Rule, binarise

_SHARPEST = 50.0
_PLAIN = 4.0


def binarise_(
    model: nn.Module, *, bits: int = 4, rule: Rule = "two_means", grain: Grain = "channel", form: Form = "tanh",
    exclude: Sequence[str] | None = None, clip: float = 2.0,
) -> nn.Module:  # fmt: skip
    """Give the convolutions and linear layers of a model binary weights and staircases on their inputs, in place.

    Inputs of a binary layer are clipped to [0, clip]: the staircase takes the place of the ReLU before it.

    Args:
        bits: of the activations.
        rule, grain: see `binarise`.
        form: see `Staircase`.
        exclude: wildcards on module names; None leaves the first and the last layer as they are, the usual rule.
        clip: upper end of the staircases until `calibrate_` or training sets it.

    Raises DataError where no layer is left or a setting is not allowed.
    """
    kinds: dict[type, type[BinaryLayer]] = {nn.Conv2d: BinaryConv2d, nn.Linear: BinaryLinear}
    layers = [(name, module) for name, module in model.named_modules() if type(module) in kinds]
    if exclude is None:
        exclude = [name for name, _ in (*layers[:1], *layers[-1:])]
    chosen = [module for name, module in layers if not any(fnmatchcase(name, one) for one in exclude)]
    if not chosen:
        raise DataError(
            f"{type(model).__name__} has no layer left to make binary: it has {len(layers)} convolutions and linear "
            f"layers, and {', '.join(exclude) or 'nothing'} is excluded"
        )
    binarise(torch.zeros(1, 1), rule, grain)  # a wrong setting is an error before anything changes
    stairs = [Staircase(bits, form, clip).to(cast(Tensor, module.weight).device) for module in chosen]
    for module, stair in zip(chosen, stairs, strict=True):
        module.__class__ = kinds[type(module)]
        binary = cast(BinaryLayer, module)
        binary.staircase, binary.rule, binary.grain, binary.folded, binary.arrays = stair, rule, grain, None, None
    return model


def binary_layers(model: nn.Module) -> dict[str, BinaryLayer]:
    """The binary layers by name; StateError where there is none."""
    found = {name: module for name, module in model.named_modules() if isinstance(module, BinaryLayer)}
    if not found:
        raise StateError("the model has no binary layer: bwma.binarise_(model) comes first")
    return found


def calibrate_(model: nn.Module, images: Tensor, quantile: float = 0.995) -> nn.Module:
    """Set the clip of every staircase to a quantile of the positive inputs it sees while the others pass theirs on.

    Normalisations use the statistics of these images and keep their own: those belong to the float weights.
    """
    stairs, was_training = [one.staircase for one in binary_layers(model).values()], model.training
    norms = [one for one in model.modules() if isinstance(one, nn.BatchNorm1d | nn.BatchNorm2d)]
    kept = [copy.deepcopy(one.state_dict()) for one in norms]
    for stair in stairs:
        stair.observed = []
    try:
        model.eval()
        for norm in norms:
            norm.train()
        with torch.no_grad():
            model(images)
        for stair in stairs:
            seen = torch.cat(stair.observed or [torch.zeros(1)])
            positive = seen[seen > 0]
            if positive.numel():
                stair.clip.data.fill_(float(positive.kthvalue(max(1, round(quantile * positive.numel()))).values))
    finally:
        for stair in stairs:
            stair.observed = None
        for norm, state in zip(norms, kept, strict=True):
            norm.load_state_dict(state)
        model.train(was_training)
    return model


def anneal_(model: nn.Module, progress: float) -> nn.Module:
    """Sharpen the soft staircases: progress 0 to 1 of the training, geometrically; sine and the baselines ignore it."""
    for layer in binary_layers(model).values():
        layer.staircase.sharpness = _PLAIN * (_SHARPEST / _PLAIN) ** min(max(progress, 0.0), 1.0)
    return model


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, BinaryLayer) or super().is_leaf_module(m, module_qualified_name)


def fold_batchnorm_(model: nn.Module) -> nn.Module:
    """Move each batch normalisation that alone follows a binary layer into the layer's epilogue; for evaluation.

    Raises DataError where torch.fx cannot follow the model.
    """
    layers = binary_layers(model)
    try:
        graph = _Tracer().trace(model)
    except Exception as error:  # whatever a model's forward does with a symbol
        raise DataError(f"batch normalisation cannot be folded: torch.fx cannot trace the model ({error})") from None
    modules = dict(model.named_modules())
    for node in graph.nodes:
        norm = modules.get(str(node.target)) if node.op == "call_module" else None
        before = node.args[0] if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d) else None
        if isinstance(before, fx.Node) and str(before.target) in layers and len(before.users) == 1:
            layers[str(before.target)].folded = _folded(cast(nn.BatchNorm2d, norm))
            parent, _, last = str(node.target).rpartition(".")
            setattr(model.get_submodule(parent), last, nn.Identity())
    return model


def _folded(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    if norm.running_var is None or norm.running_mean is None:
        raise DataError("a batch normalisation without running statistics cannot be folded")
    scale = torch.rsqrt(norm.running_var + norm.eps) * (1.0 if norm.weight is None else norm.weight.detach())
    shift = -norm.running_mean * scale
    return scale, shift if norm.bias is None else shift + norm.bias.detach()


def deploy_(model: nn.Module, chip: Chip, *, seed: int = 0, sample: Tensor | None = None) -> nn.Module:
    """Write the binary layers into 1-bit cells: evaluation then goes through the chip's exact read.

    Args:
        chip: its static_matmul unit has encoding.weights binary and unsigned serial inputs of the staircases' bits.
        seed: one manufactured chip.
        sample: images from which converters of range `calibrated` learn.

    Raises ChipError where the chip does not fit the layers, StateError where a sample is needed. Deploying again
    writes anew; `retract_` makes the layers digital.
    """
    unit, layers = _unit(chip), binary_layers(model)
    for name, layer in layers.items():
        if layer.staircase.bits != unit.input.bits:
            raise ChipError(
                f"layer {name} has activations of {layer.staircase.bits} bits, the chip inputs of {unit.input.bits}: "
                "chip.replace({'units.analog.input.bits': ...}) with the layer's bits"
            )
    calibrated = unit.adc is not None and unit.adc.range == "calibrated"
    if calibrated and sample is None:
        raise StateError("adc.range is calibrated: give deploy_ a sample of images to learn the range from")
    retract_(model)
    seen = _inputs(model, layers, sample) if calibrated and sample is not None else {}
    for name, layer in layers.items():
        layer.arrays = _program(unit, layer, name, seed, seen.get(name))
    return model


def retract_(model: nn.Module) -> nn.Module:
    """Make the binary layers digital again."""
    for layer in binary_layers(model).values():
        layer.arrays = None
    return model


def _unit(chip: Chip) -> CrossbarUnit:
    unit = chip.unit_for("static_matmul")
    if not isinstance(unit, CrossbarUnit) or unit.encoding.weights != "binary" or unit.input.signed:
        raise ChipError(
            f"chip {chip.name!r} does not keep binary weights: its static_matmul unit needs encoding {{weights: "
            "binary, bits: 1} and input.signed: false, as in cim-sram-22, cim-rram-22 and cim-fefet-22"
        )
    return unit


def _inputs(model: nn.Module, layers: dict[str, BinaryLayer], sample: Tensor) -> dict[str, list[Tensor]]:
    """Codes that reach each layer [token, row] by group, from one digital pass."""
    seen: dict[str, list[Tensor]] = {}

    def keep(name: str, module: nn.Module, inputs: tuple[Tensor]) -> None:
        layer, x = cast(BinaryLayer, module), inputs[0]
        x = x[None] if isinstance(layer, nn.Conv2d) and x.dim() == 3 else x
        seen[name] = [field[:: max(1, len(field) // 512)] for field in layer.fields(layer.staircase.codes(x))]

    handles = [layer.register_forward_pre_hook(partial(keep, name)) for name, layer in layers.items()]
    with torch.no_grad():
        model.eval()(sample)
    for handle in handles:
        handle.remove()
    return seen


def _program(
    unit: CrossbarUnit, layer: BinaryLayer, name: str, seed: int, seen: list[Tensor] | None
) -> list[BinaryArray]:
    """One array for each group; a row of signs per input, the dummy column last."""
    mode, arrays = next(iter(unit.cell.bits)), []
    for group, sign in enumerate(layer.binary().sign.flatten(1).chunk(layer.groups)):
        rows = torch.cat([sign, torch.ones_like(sign[:1])]).T.to("cpu", torch.float64)
        label = name if layer.groups == 1 else f"{name}[{group}]"
        largest = None
        if seen is not None and unit.adc is not None:
            quiet = unit.model_copy(update={"adc": None})
            cells = write(quiet, mode, rows, seed=seed, name=label, seconds=0.0, largest_sum=None)
            largest = largest_sum(seen[group].to(torch.int64), cells, unit.input, unit.adc.quantile)
        cells = write(unit, mode, rows, seed=seed, name=label, seconds=0.0, largest_sum=largest)
        arrays.append(BinaryArray(unit, cells, seed))
    return arrays
