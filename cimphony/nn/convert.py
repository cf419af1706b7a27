"""The verbs: convert_, calibrate, program_, age_, restore_. A trailing underscore changes the model in place."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import partial
from numbers import Integral
from typing import Any, get_args

from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.utils import parametrize
from torch.utils.hooks import RemovableHandle

from cimphony.chip import AcamUnit, Chip, CrossbarUnit, check_chip
from cimphony.errors import CapacityError, DataError, StateError
from cimphony.mapping import place_layer
from cimphony.nn.acam import Readout, acam_activations, attach_activations, detach_activations, follow
from cimphony.nn.acam_attention import AcamAttention
from cimphony.nn.adapters import adapter_names, allow_merging, check_adapters, replaced_names, watch_adapters
from cimphony.nn.architectures import is_pretrained
from cimphony.nn.attention import attach, attention_layers, detach, has_numbers
from cimphony.nn.experts import (
    ExpertLinear,
    SplitExperts,
    experts_apart,
    join_,
    matrix_names,
    split_experts,
    stored_name,
    wrapped_experts,
)
from cimphony.nn.layers import AnalogLayer, Stamp, analog_class, place_ranks
from cimphony.nn.low_rank import FusedLowRank
from cimphony.nn.programmed import Memory
from cimphony.nn.special_functions import attach_special
from cimphony.nn.tiles import Tiles

_DIGITAL_KEY = "_cimphony_digital"  # on the model: layers that stayed digital, and why
_HOOKS_KEY = "_cimphony_hooks"  # on the model: handles of the hooks that conversion has put on its modules
_FUSED_KEY = "_cimphony_fused"  # on torch's encoders: what they were before `_ask_layers`
_FUSED = ((nn.TransformerEncoderLayer, "activation_relu_or_gelu"), (nn.TransformerEncoder, "use_nested_tensor"))
_OWN_WEIGHTS = (nn.modules.conv._ConvNd, nn.RNNBase, nn.RNNCellBase, nn.Bilinear, nn.MultiheadAttention)


def convert_(
    model: nn.Module,
    chip: Chip,
    *,
    include: Sequence[str] = ("*",),
    exclude: Sequence[str] = (),
    chips: int | None = None,
) -> nn.Module:
    """Put the static layers of a model on the chip's crossbars and its attention on a unit for it, in place.

    The chip's policy decides: `static_matmul` on a crossbar, `adapter` (LoRA's factors in a model of PEFT's) on a
    crossbar of their own, `dynamic_matmul` on a unit that computes attention. Stacked experts of a mixture become
    layers of their own, named as in `mlp.experts.3.gate_up_proj`.

    Args:
        include, exclude: wildcards on module names, for example `exclude=["lm_head", "*.head"]`.
        chips: how many chips there are; None takes as many as the model needs.

    Returns the same model. Raises StateError where it is converted already, DataError where no layer matches or the
    attention cannot be replaced, CapacityError where it does not fit.
    """
    if isinstance(include, str) or isinstance(exclude, str):
        raise DataError("include and exclude are lists of wildcards, for example exclude=['lm_head']")
    check_chip(chip)
    if is_converted(model):
        raise StateError("the model is converted already: cim.restore_(model) first")
    with experts_apart(model) if isinstance(chip.unit_for("static_matmul"), CrossbarUnit) else nullcontext():
        return _convert(model, chip, include, exclude, chips)


def _convert(
    model: nn.Module, chip: Chip, include: Sequence[str], exclude: Sequence[str], chips: int | None
) -> nn.Module:
    name = chip.policy.get("static_matmul", "")
    unit = chip.unit_for("static_matmul")
    chosen, adapters = dict[str, nn.Module](), dict[str, nn.Module]()
    if isinstance(unit, CrossbarUnit):
        check_adapters(model)
        chosen, digital = _choose(model, include, exclude)
        adapters = _take_adapters(model, chosen, digital, chip)
        _check_redundancy(chosen, chip)
        _check_capacity(chosen, chip, name, chips)
        _check_capacity(adapters, chip, chip.adapter_unit or name, chips)
    elif not has_numbers(chip):
        raise DataError(
            f"chip {chip.name!r} runs static_matmul on {name or 'no unit'}, not on a crossbar: its numbers are the "
            "digital model's. Use it with cim.estimate, or choose another chip"
        )
    else:
        digital = {path: "the chip has no crossbar" for path, module in model.named_modules() if analog_class(module)}
    hooks: list[RemovableHandle] = []
    serves_more = isinstance(chip.unit_for("dynamic_matmul"), AcamUnit)  # so models without attention may run
    if has_numbers(chip) and (is_pretrained(model) or not serves_more):
        hooks += attach(model, chip, optional=bool(chosen or adapters))
    hooks += attach_special(model, chip)
    _attach_acams(model, chip)
    for path, module in chosen.items():
        _swap(chip, name, False, module, path)
    if isinstance(unit, CrossbarUnit) and unit.cell.slc_rate is not None:
        _share_modes(model, unit.cell.slc_rate)
    swap_adapter = partial(_swap, chip, chip.adapter_unit or name, chip.adapter_unit is not None)
    for path, module in adapters.items():
        swap_adapter(module, path)
    hooks += watch_adapters(model, swap_adapter)
    model.__dict__[_DIGITAL_KEY], model.__dict__[_HOOKS_KEY] = digital, hooks
    _ask_layers(model)
    return model


def _ask_layers(model: nn.Module) -> None:
    """In evaluation torch's encoders read the weights of their layers themselves; they must not where one is analog."""
    for module in model.modules():
        for kind, name in _FUSED:
            if isinstance(module, kind) and analog_layers(module):
                module.__dict__[_FUSED_KEY] = {name: getattr(module, name)}
                setattr(module, name, 0)


def _attach_acams(model: nn.Module, chip: Chip) -> None:
    """Make activations ready for ACAMs: those of their unit or, where no other unit has them, those behind columns."""
    unit, crossbar = chip.unit_for("activation"), chip.unit_for("static_matmul")
    arrays = chip.units[unit.arrays] if isinstance(unit, AcamUnit) else None if unit else crossbar
    if isinstance(arrays, CrossbarUnit) and arrays.acam is not None:
        attach_activations(model, arrays.acam, own_passes=unit is not None)


def _share_modes(model: nn.Module, slc_rate: float) -> None:
    """Both sides of a rank get one cell mode, as cost counts them: by gradient where it was measured, else by size."""
    for pair in model.modules():
        if isinstance(pair, FusedLowRank):
            place_ranks(pair, pair.gradient if bool(pair.gradient.any()) else pair.sigma.abs(), slc_rate)


def _choose(
    model: nn.Module, include: Sequence[str], exclude: Sequence[str]
) -> tuple[dict[str, nn.Module], dict[str, str]]:
    """Layers to convert, and the layers that stay digital with the reason."""
    _check_patterns(model, include=include, exclude=exclude)
    names = set(include)  # mixtures have thousands of layers
    chosen: dict[str, nn.Module] = {}
    digital: dict[str, str] = {}
    inside_attention = {
        f"{path}.out_proj" for path, module in model.named_modules() if isinstance(module, nn.MultiheadAttention)
    }
    wrapped = tuple(f"{path.removesuffix('base_layer')}lora_" for path in wrapped_experts(model))
    for path, module in model.named_modules():
        if analog_class(module) is not None and path.startswith(wrapped):
            digital[path] = "changes the weights of stacked experts, which are digital under it"
        elif analog_class(module) is None:
            if path in inside_attention:
                digital[path] = "used inside nn.MultiheadAttention"
            elif isinstance(module, (nn.Linear, nn.Conv2d)):
                digital[path] = _why_not(module)
            elif _is_router(module):
                digital[path] = f"{type(module).__name__}: routing is exact"
            elif _has_own_weights(module) and not isinstance(module, SplitExperts):
                digital[path] = f"{type(module).__name__}: only linear layers and Conv2d go on a crossbar"
        elif any(weight.is_complex() for weight in module.parameters(recurse=False)):
            digital[path] = "complex weights"
        elif path not in names and not any(fnmatchcase(path, pattern) for pattern in include):
            digital[path] = "not included"
        elif any(fnmatchcase(path, pattern) for pattern in exclude):
            digital[path] = "excluded"
        else:
            chosen[path] = module
    for path in split_experts(model):
        inside = [name for name in digital if name.startswith(f"{path}.")]
        if not any(name.startswith(f"{path}.") for name in chosen):  # they will be joined: one line says why
            reasons = [digital.pop(name) for name in inside]
            digital[path] = reasons[0]
    if not chosen:
        kinds = "nn.Linear, nn.Conv2d or transformers' Conv1D"
        some = ", ".join(f"{path or 'the model itself'} ({why})" for path, why in list(digital.items())[:5])
        hint = f" Left out: {some}" if some else f" It needs layers of type {kinds}"
        raise DataError(
            f"{type(model).__name__} has no layer to convert with include={list(include)}, "
            f"exclude={list(exclude)}.{hint}"
        )
    return chosen, digital


def _why_not(layer: nn.Module) -> str:
    if parametrize.is_parametrized(layer):
        return "parametrized: torch.nn.utils.parametrize.remove_parametrizations makes it plain"
    if isinstance(layer, LazyModuleMixin):
        return "without weights yet: run a batch first"
    return "a subclass with its own forward"


def _has_own_weights(module: nn.Module) -> bool:
    """Whether products of weights are the module's own: recurrences, other convolutions, stacked experts."""
    stacked = (one for one in module.parameters(recurse=False) if sum(size > 1 for size in one.shape) > 2)
    return isinstance(module, _OWN_WEIGHTS) or next(stacked, None) is not None


def _is_router(module: nn.Module) -> bool:
    """Whether a module chooses experts with a matrix of its own, as transformers' routers do."""
    weight = module._parameters.get("weight")
    return "Router" in type(module).__name__ and weight is not None and weight.dim() == 2


def _check_patterns(model: nn.Module, **patterns: Sequence[str]) -> None:
    """A misspelt name must not leave a layer on the chip, or off it, without a word."""
    paths = [path for path, _ in model.named_modules()]  # the first is the model's own, ""
    names, known = paths[1:], set(paths)
    for field, wildcards in patterns.items():
        for wildcard in wildcards:
            if wildcard not in known and not any(fnmatchcase(path, wildcard) for path in paths):
                near = get_close_matches(wildcard, [*names, *{path.rpartition(".")[2] for path in names}], 1)
                meant = f"did you mean {near[0]!r}? " if near else ""
                raise DataError(
                    f"{field}={wildcard!r} matches no layer of {type(model).__name__}: {meant}its layers are named "
                    f"like {', '.join(repr(path) for path in names[-3:])}; * is a wildcard"
                )


def _take_adapters(
    model: nn.Module, chosen: dict[str, nn.Module], digital: dict[str, str], chip: Chip
) -> dict[str, nn.Module]:
    """Takes adapters out of the chosen layers and returns those that go on a crossbar; the rest stays digital."""
    unused, names = replaced_names(model), adapter_names(model)
    for path in [path for path in chosen if path in unused]:
        del chosen[path]
        digital[path] = "replaced by modules_to_save"
    adapters = {path: chosen.pop(path) for path in [path for path in chosen if path in names]}
    if chip.adapter_unit and not isinstance(chip.units[chip.adapter_unit], CrossbarUnit):
        digital |= dict.fromkeys(adapters, f"an adapter, exact on {chip.adapter_unit}")
        return {}
    return adapters


def _swap(chip: Chip, unit_name: str, rewritable: bool, module: nn.Module, path: str) -> None:
    """Put a layer on a unit; rewritable is the memory of an adapter, written anew whenever the adapter changes."""
    kind = analog_class(module)
    assert kind is not None
    module.__class__ = kind
    assert isinstance(module, AnalogLayer)
    groups = getattr(module, "groups", 1)
    names = [path] if groups == 1 else [f"{path}[{group}]" for group in range(groups)]
    module.rewritable = rewritable
    module.tiles = [Tiles(chip, unit_name, one or "model", stored_name(path, module)) for one in names]
    acam = module.tiles[0].unit.acam
    module.readout = None if acam is None else Readout(acam, path or "model")
    module._written = Stamp(module.weight)


def _check_redundancy(chosen: dict[str, nn.Module], chip: Chip) -> None:
    for pattern in chip.redundancy:
        names = [stored_name(path, module) for path, module in chosen.items()]
        if not any(fnmatchcase(name, pattern) for name in names):
            raise DataError(
                f"redundancy: {pattern!r} matches none of the layers on the chip, which are named like "
                f"{names[0]!r}; correct the wildcard, or remove it with chip.replace"
            )


def _check_capacity(chosen: dict[str, nn.Module], chip: Chip, unit_name: str, chips: int | None) -> None:
    if chips is None or not chosen:
        return
    unit, arrays = chip.unit(unit_name, CrossbarUnit), 0
    for path, module in chosen.items():
        rows, outputs, groups = matrix_shape(module)
        redundancy = chip.redundancy_of(stored_name(path, module), unit_name)
        arrays += place_layer(unit, path, rows, outputs, groups, redundancy=redundancy).arrays
    capacity = math.prod(unit.count.values())
    if arrays > chips * capacity:
        raise CapacityError(
            f"the model needs {arrays:,} arrays of {unit.rows} x {unit.columns} of {unit_name}; {chips} x {chip.name} "
            f"{'has' if chips == 1 else 'have'} {chips * capacity:,}, {arrays - chips * capacity:,} too few. "
            f"{-(-arrays // capacity)} chips would do: chips={-(-arrays // capacity)}"
        )


def matrix_shape(module: nn.Module) -> tuple[int, int, int]:
    """Rows, output columns and groups of a layer's weight as matrices."""
    weight, groups = module.weight, getattr(module, "groups", 1)
    assert isinstance(weight, Tensor)
    outputs, *inputs = weight.shape if isinstance(module, nn.Linear | nn.Conv2d) else weight.T.shape
    return math.prod(inputs), outputs // groups, groups


def analog_layers(model: nn.Module) -> dict[str, AnalogLayer]:
    """The converted layers by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, AnalogLayer)}


def is_converted(model: nn.Module) -> bool:
    """Whether any layer or attention of the model is on a chip."""
    return bool(analog_layers(model) or attention_layers(model))


def converted_layers(model: nn.Module, verb: str) -> dict[str, AnalogLayer]:
    """The converted layers, none where only attention is converted; StateError where nothing is."""
    if not is_converted(model):
        raise StateError(f"{verb}: the model is not converted; cim.convert_(model, chip) comes first")
    return analog_layers(model)


@contextmanager
def calibrate(model: nn.Module) -> Iterator[nn.Module]:
    """Learn input and converter ranges from the batches run inside; the model computes digitally meanwhile.

    `with cim.calibrate(model): model(**batch)`. What was programmed before is forgotten.
    """
    layers = converted_layers(model, "calibrate")
    for layer in layers.values():
        for tiles in layer.tiles:
            tiles.start_calibration()
    watching = _acams(model, layers)
    for acam in watching:
        acam.start_calibration()
    completed = False
    try:
        alone = {name: one for name, one in layers.items() if one.readout and not isinstance(one, ExpertLinear)}
        with follow(model, alone):  # an activation of a mixture follows all of its experts
            yield model
        completed = True
    finally:
        for acam in watching:
            acam.finish_calibration(completed=completed)
        for layer in layers.values():
            for tiles, matrix in zip(layer.tiles, layer.matrices(), strict=True):
                tiles.finish_calibration(matrix) if completed else tiles.abandon_calibration()
        _lend_ranges(model)


def _lend_ranges(model: nn.Module) -> None:
    """Experts that no token of the calibration reached take the widest ranges of their siblings."""
    for stack in split_experts(model).values():
        for name in matrix_names(stack):
            layers = [one for one in stack.linears(name) if isinstance(one, AnalogLayer)]
            reached = [one for one in layers if one.tiles[0].input_range is not None]
            for layer in layers if reached else ():
                if layer not in reached:
                    layer.tiles[0].borrow([one.tiles[0] for one in reached])
                    if layer.readout is not None:
                        layer.readout.widen(one.readout for one in reached if one.readout is not None)


def _acams(model: nn.Module, layers: dict[str, AnalogLayer]) -> list[Any]:
    """What learns the ranges of ACAMs: behind layers, in passes of their own, in attention."""
    behind = [layer.readout for layer in layers.values() if layer.readout is not None]
    passes = [one.readout for one in acam_activations(model).values() if one.readout is not None]
    return behind + passes + [one for one in attention_layers(model).values() if isinstance(one, AcamAttention)]


def program_(model: nn.Module, *, seed: int = 0, memory: Memory = "stored") -> nn.Module:
    """Write the weights: one seed is one draw of programming noise, one manufactured chip.

    The same seed gives the same cells on any machine, in any order. With `memory="regenerated"` layers of exact
    fidelity keep one byte a weight and write their cells anew, the same ones, at every read: some ten times less
    memory, and slower. Raises StateError where ranges are missing, DataError where weights hold NaN or Inf.
    """
    if not isinstance(seed, Integral) or isinstance(seed, bool) or not 0 <= seed < 2**63:
        raise DataError(f"seed = {seed!r} is not allowed: it must be an integer from 0 to 2^63 - 1")
    if memory not in get_args(Memory):
        raise DataError(f"memory = {memory!r} is not allowed: it must be one of {', '.join(get_args(Memory))}")
    for layer in converted_layers(model, "program_").values():
        layer.program(seed=int(seed), memory=memory)
    for attention in attention_layers(model).values():
        attention.program(int(seed))
    for activation in acam_activations(model).values():
        if activation.readout is not None and activation.done_by is None:
            activation.readout.program(int(seed))
    return model


def age_(model: nn.Module, *, seconds: float) -> nn.Module:
    """Set the age of the programmed chip: the time since programming, not since the last call [s].

    Stored weights age. Attention writes its operands anew for every text: their leakage is in the unit's own fields.
    """
    if not seconds >= 0 or seconds == float("inf"):
        raise DataError(f"seconds = {seconds!r} is not allowed: an age is a finite number of seconds, 0 or more")
    for name, layer in converted_layers(model, "age_").items():
        programmed = layer.tiles[0].programmed
        if programmed is None or (layer.stale and not layer.rewritable):
            why = "is not programmed" if programmed is None else "has other weights than were programmed"
            raise StateError(f"age_: layer {name} {why}; cim.program_(model, seed=...) comes first")
        layer.program(seed=programmed.seed, seconds=float(seconds), rewrites=programmed.rewrites)
    return model


def restore_(model: nn.Module) -> nn.Module:
    """Make the model digital again, bit for bit: layers get their own classes, attention its own implementation."""
    for layer in converted_layers(model, "restore_").values():
        digital = type(layer).__mro__[type(layer).__mro__.index(AnalogLayer) + 1]
        del layer.tiles, layer._written, layer.rewritable, layer.readout
        layer.__class__ = digital
    for stack in split_experts(model).values():
        join_(stack)
    allow_merging(model)
    if attention_layers(model):
        detach(model)
    detach_activations(model)
    for hook in model.__dict__.pop(_HOOKS_KEY, ()):
        hook.remove()
    for module in model.modules():
        module.__dict__.update(module.__dict__.pop(_FUSED_KEY, {}))
    model.__dict__.pop(_DIGITAL_KEY, None)
    return model


def digital_layers(model: nn.Module) -> dict[str, str]:
    """Layers that stayed digital, and why."""
    return dict(model.__dict__.get(_DIGITAL_KEY, {}))
