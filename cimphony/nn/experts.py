"""Mixtures of experts that stack their weights: transformers' experts interface, `transformers.integrations.moe`.

Such a module holds `gate_up_proj` (or `up_proj`) and `down_proj` as [expert, ...] parameters and is called with hidden
states, the experts of each token and their weights. For a chip it is split: every expert gets linear layers of its
own, views of the stacked parameters, which stay the only ones.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from cimphony.circuits.uncompiled import uncompiled

_CONTRACT = ("has_gate", "has_bias", "is_transposed", "down_proj")


def is_experts(module: nn.Module) -> bool:
    """Whether a module follows the interface and holds nothing but its matrices and biases: quantised ones do more."""
    if not all(hasattr(module, name) for name in _CONTRACT):
        return False
    names = matrix_names(module)
    held = {*names, *(f"{name}_bias" for name in names if module.has_bias)}
    return set(module._parameters) == held and not hasattr(module, "parametrizations")


def matrix_names(stack: Any) -> tuple[str, str]:
    """Parameters of the two products of an expert, in their order."""
    return "gate_up_proj" if stack.has_gate else "up_proj", "down_proj"


def matrix_shapes(stack: Any, name: str) -> tuple[int, int, int]:
    """Experts, outputs and inputs of a stacked parameter."""
    experts, outputs, inputs = getattr(stack, name).shape
    return (experts, inputs, outputs) if stack.is_transposed else (experts, outputs, inputs)


def through_expert(
    stack: Any, rows: Tensor, up: Callable[[Tensor], Tensor], down: Callable[[Tensor], Tensor]
) -> Tensor:
    """Rows [token, in] through the products of an expert and what the model has between and behind them."""
    inner = stack._apply_gate(up(rows)) if stack.has_gate else stack.act_fn(up(rows))
    results = down(inner)
    return stack.post_expert_norm(results) if getattr(stack, "has_post_expert_norm", False) else results


class ExpertLinear(nn.Linear):
    """A product of one expert as a linear layer without parameters: its weight is a view of the stack's."""

    stack: Any

    def __init__(self, stack: nn.Module, name: str, number: int) -> None:
        nn.Module.__init__(self)
        self.__dict__["stack"] = stack  # not as a module inside: it is the one around
        self.name, self.number = name, number
        _, self.out_features, self.in_features = matrix_shapes(stack, name)

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """[out, in]."""
        one = getattr(self.stack, self.name)[self.number]
        return one.T if self.stack.is_transposed else one

    @property
    def bias(self) -> Tensor | None:  # type: ignore[override]
        """[out], where the experts have one."""
        return getattr(self.stack, f"{self.name}_bias")[self.number] if self.stack.has_bias else None


class SplitExperts(nn.Module):
    """Stacked experts as a module for each: `3.gate_up_proj` and `3.down_proj` of expert 3."""

    @uncompiled
    def forward(self, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
        """Hidden states [token, in], experts of each token and their weights [token, slot]; [token, out]."""
        summed = torch.zeros_like(hidden_states)
        for number in top_k_index.unique().tolist():
            if str(number) not in self._modules:  # transformers' mark for experts of another device
                continue
            token, slot = torch.where(top_k_index == number)
            up, down = self.get_submodule(str(number)).children()
            results = through_expert(self, hidden_states[token], up, down) * top_k_weights[token, slot, None]
            summed.index_add_(0, token, results.to(summed.dtype))
        return summed

    def linears(self, name: str | None = None) -> list[ExpertLinear]:
        """The linear layers of all experts, or those of one product."""
        return [one for one in self.modules() if isinstance(one, ExpertLinear) and name in (None, one.name)]

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        super()._apply(fn, recurse)
        for one in self.linears():  # once more: now their weights have moved
            one._apply(fn)
        return self

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for one in self.linears():  # copied before the weights that they look at
            one.__setstate__({})


@cache
def _split_class(kind: type[nn.Module]) -> type[nn.Module]:
    return type(f"Split{kind.__name__}", (SplitExperts, kind), {"__module__": __name__, "__doc__": kind.__doc__})


def split_(stack: nn.Module) -> None:
    """Give every expert layers of its own."""
    names = matrix_names(stack)
    stack.__class__ = _split_class(type(stack))
    for number in range(matrix_shapes(stack, names[0])[0]):
        layers = nn.ModuleDict({name: ExpertLinear(stack, name, number) for name in names})
        stack.add_module(str(number), layers.train(stack.training))


def join_(stack: SplitExperts) -> None:
    """Make split experts one module again, of its own class."""
    for number in {one.number for one in stack.linears()}:
        delattr(stack, str(number))
    stack.__class__ = type(stack).__mro__[2]


def split_experts(model: nn.Module) -> dict[str, SplitExperts]:
    """The split mixtures of a model by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, SplitExperts)}


def wrapped_experts(model: nn.Module) -> list[str]:
    """Mixtures whose parameters an adapter of PEFT's changes in every call: no cells can follow that."""
    named = model.named_modules()
    return [name for name, module in named if name.endswith(".base_layer") and is_experts(module)]


def stored_name(path: str, module: nn.Module) -> str:
    """The name under which a placement knows a layer: experts are stored as one layer of many matrices."""
    return f"{path.rsplit('.', 2)[0]}.{module.name}" if isinstance(module, ExpertLinear) else path


@contextmanager
def experts_apart(model: nn.Module) -> Iterator[None]:
    """Split all experts while layers are chosen; those of which none was put on a chip are joined in the end."""
    wrapped = wrapped_experts(model)
    for name, module in list(model.named_modules()):
        if is_experts(module) and not isinstance(module, SplitExperts) and name not in wrapped:
            split_(module)
    try:
        yield
    finally:
        for stack in split_experts(model).values():
            if all(type(one) is ExpertLinear for one in stack.linears()):
                join_(stack)
