"""Attention on a chip's unit, through transformers' own attention interface: no model code is copied or changed.

A converted attention module gets a child, `cimphony`, which computes both products and what is between them. Another
unit for dynamic_matmul is one entry in `_MODULES`: a module that is called as GainCellAttention is, or, where it is
`masked`, as DigitalAttention is, with the model's own mask and scaling.
"""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from cimphony.chip import Chip, NorPimUnit
from cimphony.errors import DataError
from cimphony.nn.acam_attention import AcamAttention
from cimphony.nn.architectures import is_pretrained
from cimphony.nn.digital_attention import DigitalAttention
from cimphony.nn.gain_cell import GainCellAttention

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NAME = "cimphony"  # of the implementation, and of the child module
_MASKED = "cimphony_masked"  # of the implementation for modules that take a mask
_BEFORE = "_cimphony_attention"  # on the model: its own implementations, by configuration
_MODULES: dict[str, Any] = {  # unit kind: what computes its attention
    "gain_cell_attention": GainCellAttention,
    "nor_pim": DigitalAttention,
    "acam": AcamAttention,
}


def has_numbers(chip: Chip) -> bool:
    """Whether the chip's unit for dynamic_matmul computes attention here; others are exact and stay digital."""
    unit = chip.unit_for("dynamic_matmul")
    exact = isinstance(unit, NorPimUnit) and unit.attention is None
    return unit is not None and unit.kind in _MODULES and not exact


def attention_layers(model: nn.Module) -> dict[str, Any]:
    """The converted attention by name of its module in the model."""
    found = {name: getattr(module, NAME, None) for name, module in model.named_modules()}
    return {name: module for name, module in found.items() if isinstance(module, tuple(_MODULES.values()))}


def attach(model: nn.Module, chip: Chip, *, optional: bool) -> list[RemovableHandle]:
    """Put every attention module of a model on the chip's unit for dynamic_matmul; returns the hooks this takes.

    `optional`: a model without attention has other layers on the chip.
    Raises DataError where the model's attention cannot be replaced, CapacityError where a head does not fit.
    """
    unit_name = chip.policy["dynamic_matmul"]
    kind = _MODULES[chip.units[unit_name].kind]
    masked = getattr(kind, "masked", False)
    if not any(map(_attends, *zip(*model.named_modules(), strict=True))):
        if optional:
            return []
        raise DataError(
            f"{type(model).__name__} has no attention to put on units.{unit_name}, and chip {chip.name!r} has no "
            "crossbar for its layers; choose a chip that has one, for example pcm-256"
        )
    modules = _replaceable(model, unit_name, causal=not masked)
    assert is_pretrained(model)
    made = {
        name: kind(chip, unit_name, name or "model", layers=len(modules), **_shape(module, model))
        for name, module in modules.items()
    }
    _register()
    model.__dict__[_BEFORE] = [config._attn_implementation for config in _configurations(model)]
    for name, module in modules.items():
        parameter = next(module.parameters())
        module.add_module(NAME, made[name].to(parameter.device))
        module.get_submodule(NAME).train(module.training)
    model.set_attn_implementation(_MASKED if masked else NAME)
    if masked:
        return []
    from cimphony.nn.ring import fit_cache

    return [model.register_forward_pre_hook(fit_cache, with_kwargs=True)]


def _register() -> None:
    """Make both implementations known to transformers."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface, eager_mask

    for name, attention, mask in ((NAME, _attention, _padding), (_MASKED, _masked_attention, eager_mask)):
        AttentionInterface.register(name, attention)
        AttentionMaskInterface.register(name, mask)


def detach(model: nn.Module) -> None:
    """Give the model its own attention back."""
    for name in attention_layers(model):
        delattr(model.get_submodule(name), NAME)
    for config, own in zip(_configurations(model), model.__dict__.pop(_BEFORE), strict=True):
        config._attn_implementation_internal = own


def _configurations(model: nn.Module) -> list[Any]:
    """Configurations of the model and the models inside it, each once."""
    configs = [module.config for module in model.modules() if is_pretrained(module)]
    return list({id(config): config for config in configs}.values())


def _replaceable(model: nn.Module, unit_name: str, *, causal: bool) -> dict[str, nn.Module]:
    """The attention modules; DataError where they cannot be replaced."""
    way_out = "exclude it by taking dynamic_matmul and softmax out of the chip's policy"
    kind = type(model).__name__
    if not is_pretrained(model) or not model._can_set_attn_implementation():
        raise DataError(
            f"the attention of {kind} cannot be put on units.{unit_name}: it does not follow transformers' attention "
            f"interface. Use a Hugging Face model that does, or {way_out}"
        )
    found: dict[str, nn.Module] = {
        name: module
        for name, module in model.named_modules()
        if hasattr(module, "is_causal") and "attention" in type(module).__name__.lower()
    }
    if not found:
        raise DataError(f"{kind} has no attention to put on units.{unit_name}; {way_out}")
    for name, module in found.items():
        if causal and not module.is_causal:
            raise DataError(
                f"the attention of {kind} cannot be put on units.{unit_name}: layer {name} looks ahead or across, and "
                f"a ring of columns holds only the past. Use a decoder, or {way_out}"
            )
    return found


def _attends(name: str, module: nn.Module) -> bool:
    """Whether a module is attention by its name or its class's, ours or anybody's."""
    last = name.rpartition(".")[2].lower()
    return any(word in one for one in (last, type(module).__name__.lower()) for word in ("attention", "attn"))


def _shape(module: nn.Module, model: "PreTrainedModel") -> dict[str, int]:
    config: Any = getattr(module, "config", model.config)
    heads = config.num_attention_heads
    size = getattr(module, "head_dim", None) or getattr(config, "head_dim", None) or config.hidden_size // heads
    return {"heads": heads, "key_heads": getattr(config, "num_key_value_heads", None) or heads, "size": size}


def _padding(
    batch_size: int, q_length: int, kv_length: int, kv_offset: int = 0, attention_mask: Tensor | None = None, **how: Any
) -> Tensor | None:
    """The mask a converted model makes: bool [batch, token], False for padding; None where there is none.

    What is not plain causal attention raises DataError: columns are read or not, for every query alike.
    """
    if not how.get("allow_is_causal_skip", True) or how.get("use_vmap"):
        raise DataError(
            "this mask is not plain causal attention (packed sequences, blocks or a function of its own): columns of "
            "memory are read from the oldest to the newest. Give one text for each entry of the batch"
        )
    if attention_mask is None or bool(attention_mask.all()):
        return None
    return attention_mask[:, kv_offset : kv_offset + kv_length].bool()


def _attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **how: Any
) -> tuple[Tensor, None]:
    """Attention as transformers calls it: [batch, head, token, feature] in, [batch, token, head, feature] out.

    The model's scaling and attention dropout do not apply: gains are the scalers', and pulses are not dropped.
    """
    if attention_mask is not None and attention_mask.dim() != 2:
        raise DataError(
            f"an attention mask of shape {tuple(attention_mask.shape)} cannot be applied by columns of memory; give "
            "[batch, token], 0 for padding"
        )
    unit: nn.Module = module.get_submodule(NAME)
    with torch.autocast(query.device.type, enabled=False):
        found = unit(query, key, value, attention_mask, how.get("sliding_window"))
    return found.transpose(1, 2), None


def _masked_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **how: Any
) -> tuple[Tensor, None]:
    """Attention as transformers calls it, with the model's scaling and a mask that is added to the scores."""
    scaling = how.get("scaling")
    unit: nn.Module = module.get_submodule(NAME)
    with torch.autocast(query.device.type, enabled=False):
        found = unit(query, key, value, attention_mask, query.shape[-1] ** -0.5 if scaling is None else scaling)
    return found.transpose(1, 2), None
