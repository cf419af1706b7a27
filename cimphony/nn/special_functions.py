"""Normalisation and activation modules in FP16, where the chip's special-function unit has 16 bits.

Inputs and results are rounded; the arithmetic between is the module's own.
"""

from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from cimphony.chip import Chip, SpecialFunctionUnit

_ENDS: dict[Literal["norm", "activation"], tuple[str, ...]] = {
    "norm": ("LayerNorm", "RMSNorm"),
    "activation": ("Activation", "GELU", "SiLU", "ReLU", "Tanh", "Sigmoid"),
}


def attach_special(model: nn.Module, chip: Chip) -> Iterator[RemovableHandle]:
    """Round what goes into and comes out of modules that the chip gives to a 16-bit special-function unit."""
    for operation, ends in _ENDS.items():
        unit = chip.unit_for(operation)
        if not isinstance(unit, SpecialFunctionUnit) or unit.bits is None:
            continue
        for module in model.modules():
            if type(module).__name__.endswith(ends):
                yield module.register_forward_pre_hook(_round_inputs)
                yield module.register_forward_hook(_round_outputs)


def _round_inputs(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(_rounded(one) for one in inputs)


def _round_outputs(module: nn.Module, inputs: Any, output: Any) -> Any:
    return _rounded(output)


def _rounded(value: Any) -> Any:
    """To the nearest FP16 number; beyond its range to the largest. Gradients pass as if nothing was rounded."""
    if not isinstance(value, Tensor) or not value.is_floating_point():
        return value
    largest = torch.finfo(torch.float16).max
    rounded = value.detach().clamp(-largest, largest).half().to(value.dtype)
    return value + (rounded - value).detach() if value.requires_grad else rounded
