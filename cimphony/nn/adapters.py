"""Low-rank adapters (PEFT's LoRA) on a chip: base layers stay programmed, the adapters' memory is rewritten at will.

PEFT's layers are known by what they hold, `base_layer`, `lora_A` and `lora_B`; PEFT itself is never imported. Its own
tools train, save, load and swap adapters of a converted model: an adapter added later is put on the chip when it is
first used. Only merging is refused, because it would write the adapter into the base layer's cells.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from torch import nn
from torch.utils.hooks import RemovableHandle

from cimphony.errors import DataError, StateError
from cimphony.nn.layers import AnalogLayer, analog_class

Swap = Callable[[nn.Module, str], None]  # puts one adapter layer, by its name, on the chip
_SIDES = ("lora_A", "lora_B")


def lora_layers(model: nn.Module) -> dict[str, nn.Module]:
    """PEFT's LoRA layers by name."""
    return {name: module for name, module in model.named_modules() if _is_lora(module)}


def _is_lora(module: nn.Module) -> bool:
    parts = vars(module).get("_modules", {})
    return "base_layer" in parts and all(isinstance(parts.get(side), nn.ModuleDict) for side in _SIDES)


def adapter_names(model: nn.Module) -> set[str]:
    """Names of modules that belong to a task and not to the pretrained model: LoRA's factors, `modules_to_save`."""
    roots = [f"{name}.{side}." for name in lora_layers(model) for side in _SIDES]
    roots += [f"{name}.modules_to_save." for name, _ in _replaced(model)]
    return {name for name, _ in model.named_modules() if name.startswith(tuple(roots))} if roots else set()


def replaced_names(model: nn.Module) -> set[str]:
    """Names of modules that PEFT keeps but does not use: originals of `modules_to_save`."""
    roots = tuple(f"{name}.original_module" for name, _ in _replaced(model))
    return {name for name, _ in model.named_modules() if name.startswith(roots)} if roots else set()


def _replaced(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for name, module in model.named_modules():
        parts = vars(module).get("_modules", {})
        if "original_module" in parts and isinstance(parts.get("modules_to_save"), nn.ModuleDict):
            yield name, module


def check_adapters(model: nn.Module) -> None:
    """Raises DataError for adapters that a chip cannot run beside their base layer: merged ones, and variants."""
    for name, module in lora_layers(model).items():
        if getattr(module, "merged", False):
            raise DataError(f"layer {name}: its adapter is merged into the base weight; model.unmerge_adapter() first")
        for adapter, variant in getattr(module, "lora_variant", {}).items():
            raise DataError(
                f"layer {name}: adapter {adapter!r} is a {type(variant).__name__}, which needs the base weight itself; "
                "only plain LoRA can run beside programmed cells"
            )


def watch_adapters(model: nn.Module, swap: Swap) -> Iterator[RemovableHandle]:
    """Refuse merging into converted base layers; put adapters that come later on the chip."""
    for name, module in lora_layers(model).items():
        if isinstance(module.base_layer, AnalogLayer):
            module.__dict__["merge"] = refuse_merge
        if any(isinstance(one, AnalogLayer) for _, one in _factors(module)):
            yield module.register_forward_pre_hook(partial(_put_on_chip, swap, name))


def allow_merging(model: nn.Module) -> None:
    """Give converted LoRA layers their own way to merge back."""
    for module in lora_layers(model).values():
        module.__dict__.pop("merge", None)


def refuse_merge(*_: Any, **__: Any) -> None:
    """What a converted LoRA layer does in place of merging."""
    raise StateError(
        "merging is refused: the base weights are programmed cells, and merging would write the adapter into them, "
        "where it takes their noise and costs a reprogramming for every task. Keep the adapter apart, or "
        "cim.restore_(model) first and merge the digital model"
    )


def _factors(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for side in _SIDES:
        for adapter, one in module.get_submodule(side).named_children():
            yield f"{side}.{adapter}", one


def _put_on_chip(swap: Swap, name: str, module: nn.Module, _: Any) -> None:
    """Before a LoRA layer runs: adapters loaded since the conversion join the others, with the chip's seed and age."""
    factors = dict(_factors(module))
    later = {key: one for key, one in factors.items() if analog_class(one) is not None}
    if not later:
        return
    known = next(one for one in factors.values() if isinstance(one, AnalogLayer))
    held = known.tiles[0].programmed
    for key, one in later.items():
        swap(one, f"{name}.{key}")
        assert isinstance(one, AnalogLayer)
        if held is not None:
            one.program(seed=held.seed, seconds=held.seconds)
