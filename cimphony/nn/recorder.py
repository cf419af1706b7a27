"""Recording the operations of one forward pass on the meta device: what `trace` is made of.

Functions are seen by a torch function mode, modules by hooks. Every tensor is one of three: live (it depends on the
inputs), a weight (it depends on parameters only), a constant (on neither). So a product of two live tensors is
dynamic, one with a weight or a constant is static, and masks or rotary tables, which no input reaches, are not
work of the model.
"""

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from cimphony.chip import OperationKind
from cimphony.errors import DataError
from cimphony.nn.adapters import adapter_names
from cimphony.nn.experts import is_experts, matrix_names, matrix_shapes, through_expert
from cimphony.workload import Operation, Phase

_LIVE = object()
_ELEMENTWISE = {
    **{prefix + name: name for name in ("add", "sub", "mul") for prefix in ("", "r", "i")},
    **dict.fromkeys(("div", "truediv", "rtruediv", "itruediv", "true_divide"), "div"),
    **{name: name for name in ("max_pool1d", "max_pool2d", "avg_pool1d", "avg_pool2d", "adaptive_avg_pool2d")},
}
_ACTIVATIONS = {
    *("relu", "relu6", "leaky_relu", "prelu", "elu", "selu", "celu", "gelu", "silu", "mish", "glu", "softplus"),
    *("sigmoid", "logsigmoid", "log_sigmoid", "hardsigmoid", "hardswish", "hardtanh", "tanh"),
}
_NORMS = ("layer_norm", "rms_norm", "group_norm", "batch_norm", "instance_norm")
_RECURRENT = {"lstm", "gru", "rnn_tanh", "rnn_relu", "lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell"}
_UNKNOWN = {
    *("tensordot", "bilinear", "chain_matmul", "multi_dot", "addbmm", "inner", "addmv", "addr", "cdist", "kron"),
    *("grouped_mm", "scaled_mm"),
}


class Recorder(TorchFunctionMode):
    """Writes down what a model on the meta device does while this context is open.

    Args:
        model: on the meta device, in evaluation mode.
        phase: written into every operation.
        repeat: how often the phase does each operation.
    """

    def __init__(self, model: nn.Module, phase: Phase = "prefill", repeat: int = 1):
        super().__init__()
        self.operations: list[Operation] = []
        self._found: list[dict[str, Any]] = []
        self._common = {"phase": phase, "repeat": repeat}
        self._model = model
        self._names = {id(parameter): name for name, parameter in model.named_parameters()}
        self._adapters = adapter_names(model)
        self._running: list[tuple[str, nn.Module]] = []
        self._inside_whole = 0
        self._hooks: list[Any] = []

    def __enter__(self) -> Self:
        for name, module in self._model.named_modules():
            whole = _whole(module)
            self._hooks.append(module.register_forward_pre_hook(partial(self._begin, name or "model", whole)))
            self._hooks.append(module.register_forward_hook(partial(self._end, whole)))
            if is_experts(module):
                module.forward = partial(self._experts, module)  # which ones are hit, shapes alone cannot tell
            if whole is not None and type(module).__name__.endswith(("RMSNorm", "LayerNorm", "Activation")):
                module.forward = _same_shape  # what is inside is not recorded, and slow on meta
        return super().__enter__()

    def __exit__(self, *reason: Any) -> None:
        for hook in self._hooks:
            hook.remove()
        for module in self._model.modules():
            module.__dict__.pop("forward", None)
        super().__exit__(*reason)
        self.operations = [Operation.model_validate(found | self._common) for found in self._found]

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "").strip("_")
        if name in _UNKNOWN and not self._inside_whole and self._strongest(args, kwargs) is _LIVE:
            way = (
                "experts must follow transformers' interface" if name == "grouped_mm" else "use matmul, linear or conv"
            )
            raise DataError(f"{self._layer}: trace cannot count torch.{name}; {way}")
        result = _attended(*args, **kwargs) if name == "scaled_dot_product_attention" else func(*args, **kwargs)
        state = self._strongest(args, kwargs)
        if state is not None:
            for tensor in _tensors(args[:1] if name in ("setitem", "copy") else result):
                if not isinstance(tensor, nn.Parameter):
                    tensor._traced = state  # type: ignore[attr-defined]
        if not self._inside_whole and isinstance(result, Tensor | tuple):
            self._write(name, args, kwargs, result)
        return result

    def _write(self, name: str, args: Any, kwargs: Any, result: Any) -> None:
        if name in _PRODUCTS:
            _PRODUCTS[name](self, name, result, *args, **kwargs)
        elif name in _RECURRENT:
            self._recurrent(name, args)
        elif name in ("embedding", "embedding_bag"):
            self._simple("embedding", "embedding", result)
        elif not isinstance(result, Tensor) or self._state(result) is not _LIVE:
            return
        elif name in ("softmax", "log_softmax"):
            self._softmax(name, result)
        elif name in _ACTIVATIONS:
            self._simple("activation", name, result)
        elif name in _NORMS:
            self._simple("norm", name, result)
        elif name in _ELEMENTWISE and (result.is_floating_point() or result.is_complex()):
            self._simple("elementwise", _ELEMENTWISE[name], args[0] if "pool" in name else result)

    # --- modules ---------------------------------------------------------

    def _begin(self, name: str, whole: Any, module: nn.Module, _: Any) -> None:
        self._running.append((name, module))
        self._inside_whole += whole is not None

    def _end(self, whole: tuple[OperationKind, str] | None, module: nn.Module, _: Any, result: Any) -> None:
        self._inside_whole -= whole is not None
        if whole is not None and not self._inside_whole and self._state(result) is _LIVE:
            self._simple(*whole, result)
        self._running.pop()

    @property
    def _layer(self) -> str:
        return self._running[-1][0] if self._running else "model"

    def _stored_layer(self, stored: Tensor) -> str:
        """The layer of a stored operand: the module that runs, or the parameter itself where a module has several."""
        layer, module = self._running[-1] if self._running else ("model", self._model)
        origin = self._state(stored)
        for key, parameter in module._parameters.items():
            if parameter is origin:
                return layer if key == "weight" else f"{layer}.{key}"
        if id(origin) in self._names and not hasattr(module, "weight"):
            return self._names[id(origin)].removesuffix(".weight")
        return layer

    # --- live, weight or constant ------------------------------------------

    def _state(self, tensor: Any) -> Any:
        """`_LIVE`, the parameter a weight comes from, or None for a constant."""
        return tensor if isinstance(tensor, nn.Parameter) else getattr(tensor, "_traced", None)

    def _strongest(self, args: Any, kwargs: Any) -> Any:
        states = [state for tensor in _tensors((args, kwargs)) if (state := self._state(tensor)) is not None]
        return _LIVE if any(state is _LIVE for state in states) else next(iter(states), None)

    def _stored(self, left: Tensor, right: Tensor) -> Tensor | None:
        """Which operand of a product is stored; None for neither."""
        live = [self._state(tensor) is _LIVE for tensor in (left, right)]
        if all(live):
            return None
        if any(live):
            return right if live[0] else left
        return right if self._state(right) is not None else left

    def _is_work(self, left: Tensor, right: Tensor) -> bool:
        """False for products that can be computed once and for all: weights or constants with their like."""
        states = [self._state(tensor) for tensor in (left, right)]
        return any(state is _LIVE for state in states) or (states[0] is None) != (states[1] is None)

    # --- operations --------------------------------------------------------

    def _product(self, stored: Tensor | None, function: str, m: int, k: int, n: int, groups: int) -> None:
        found = {"function": function, "m": m, "k": k, "n": n, "groups": groups}
        if stored is None:
            self._found.append({"layer": self._layer, "kind": "dynamic_matmul", **found})
        else:
            axis = getattr(self._running[-1][1], "modes_by", None) if self._running else None
            split = {} if axis is None else {"modes_by": axis}
            layer = self._stored_layer(stored)
            kind = "adapter" if layer in self._adapters else "static_matmul"
            self._found.append({"layer": layer, "kind": kind, **split, **found})

    def _simple(self, kind: OperationKind, function: str, result: Tensor) -> None:
        for found in reversed(self._found):
            if found["layer"] != self._layer:
                break
            if found["kind"] == kind == "elementwise" and found["function"] == function:
                found["elements"] += result.numel()
                return
        self._found.append({"layer": self._layer, "kind": kind, "function": function, "elements": result.numel()})

    def _softmax(self, name: str, result: Tensor) -> None:
        """A softmax of a product makes that product the scores of an attention."""
        scores = next((found for found in reversed(self._found) if found["kind"] == "dynamic_matmul"), None)
        if scores is not None and scores["layer"] == self._layer and scores["function"] == "matmul":
            scores["function"] = "query_key"
        self._simple("softmax", name, result)

    def _dynamic_function(self) -> str:
        """`attention_value` for a product of what a softmax of scores has given."""
        mine = [found for found in self._found if found["layer"] == self._layer]
        kinds = [found["function"] for found in mine if found["kind"] in ("softmax", "dynamic_matmul")]
        return "attention_value" if kinds[-2:] == ["query_key", "softmax"] else "matmul"

    def _matmul(self, name: str, result: Tensor, *operands: Any, **named: Any) -> None:
        """matmul, mm, bmm, mv, dot and, after their added term, addmm and baddbmm."""
        tensors = [operand for operand in (*operands, *named.values()) if isinstance(operand, Tensor)]
        left, right = tensors[1:3] if "add" in name else tensors[:2]
        if name == "rmatmul":
            left, right = right, left
        if not self._is_work(left, right):
            return
        stored = self._stored(left, right)
        n = 1 if right.dim() == 1 else right.shape[-1]
        if stored is None:
            k, rows = left.shape[-1], 1 if left.dim() == 1 else left.shape[-2]
            self._product(None, self._dynamic_function(), rows, k, n, result.numel() // (rows * n))
            return
        matrix = stored[:, None] if stored.dim() == 1 and stored is right else stored
        matrix = matrix[None, :] if matrix.dim() == 1 else matrix
        outputs, inputs = (matrix.shape[-1], matrix.shape[-2]) if stored is right else tuple(matrix.shape[-2:])
        steps = zip(matrix.shape[:-2], matrix.stride()[:-2], strict=True)
        groups = math.prod(size for size, step in steps if step != 0)  # an expanded matrix is stored once
        self._product(stored, "linear", result.numel() // (outputs * groups), inputs, outputs, groups)

    def _linear(self, name: str, result: Tensor, input: Tensor, weight: Tensor, bias: Any = None) -> None:
        n, k = weight.shape
        if self._is_work(input, weight):
            stored = None if self._state(input) is self._state(weight) is _LIVE else weight
            self._product(stored, "linear", input.numel() // k, k, n, 1)

    def _experts(self, stack: Any, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
        """Stacked experts: every token [token, in] through as many as its row of the index has entries."""
        used = top_k_index.shape[-1]
        up, down = (partial(self._through_experts, stack, name, used) for name in matrix_names(stack))
        results = through_expert(stack, hidden_states.repeat_interleave(used, dim=0), up, down)
        return (results * top_k_weights.reshape(-1, 1)).view(-1, used, results.shape[-1]).sum(dim=1)

    def _through_experts(self, stack: Any, name: str, used: int, rows: Tensor) -> Tensor:
        experts, outputs, inputs = matrix_shapes(stack, name)
        shape = {"m": rows.shape[0] // used, "k": inputs, "n": outputs, "groups": experts, "active": used}
        self._found.append({"layer": f"{self._layer}.{name}", "kind": "static_matmul", "function": "linear", **shape})
        return live(rows.new_empty(rows.shape[0], outputs))

    def _conv(self, name: str, result: Tensor, input: Tensor, weight: Tensor, *rest: Any, **named: Any) -> None:
        groups = named.get("groups", rest[4] if len(rest) > 4 else 1)
        channels, kernel = weight.shape[0], math.prod(weight.shape[1:])
        if "transpose" in name:  # weight [in, out / groups, ...], a product for each input pixel
            self._product(weight, name, input.numel() // channels, channels // groups, kernel, groups)
        else:  # weight [out, in / groups, ...], a product for each output pixel
            self._product(weight, name, result.numel() // channels, kernel, channels // groups, groups)

    def _einsum(self, name: str, result: Tensor, equation: str, *operands: Any) -> None:
        tensors = list(_tensors(operands))
        if len(tensors) != 2 or not isinstance(equation, str):
            raise DataError(f"{self._layer}: trace counts einsum of two tensors as 'ab,bc->ac'; write it in such steps")
        terms, _, output = equation.replace(" ", "").partition("->")
        sizes: dict[str, int] = {}
        letters = [_letters(term, tensor, sizes) for term, tensor in zip(terms.split(","), tensors, strict=True)]
        kept = _letters(output, result, sizes) if "->" in equation else sorted(set(letters[0]) ^ set(letters[1]))
        if not self._is_work(*tensors):
            return
        shared = [letter for letter in letters[0] if letter in letters[1]]
        groups = math.prod(sizes[letter] for letter in shared if letter in kept)
        k = math.prod(sizes[letter] for letter in shared if letter not in kept)
        m, n = (
            math.prod(sizes[letter] for letter in term if letter in kept and letter not in shared) for term in letters
        )
        stored = self._stored(*tensors)
        function = self._dynamic_function() if stored is None else "linear"
        self._product(stored, function, *((n, k, m) if stored is tensors[0] else (m, k, n)), groups)

    def _attention(
        self, name: str, result: Tensor, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any
    ) -> None:
        self._scores(result.numel() // (query.shape[-2] * value.shape[-1]), *query.shape[-2:], *value.shape[-2:])

    def _scores(self, groups: int, queries: int, width: int, keys: int, value_width: int) -> None:
        self._product(None, "query_key", queries, width, keys, groups)
        scores = {"kind": "softmax", "function": "softmax", "elements": groups * queries * keys}
        self._found.append({"layer": self._layer, **scores})
        self._product(None, "attention_value", queries, keys, value_width, groups)

    def _multi_head(
        self, name: str, result: Any, query: Tensor, key: Tensor, value: Tensor, *rest: Any, **_: Any
    ) -> None:
        """torch's own attention module, which is one function: [token, image, feature] or [token, feature]."""
        width, heads = rest[0], rest[1]
        layer = self._layer
        for part, tensor in (("q", query), ("k", key), ("v", value)):
            self._project(f"{layer}.{part}_proj", tensor, width)
        images = query.shape[1] if query.dim() == 3 else 1
        self._scores(images * heads, query.shape[0], width // heads, key.shape[0], width // heads)
        self._project(f"{layer}.out_proj", query, width)

    def _project(self, layer: str, inputs: Tensor, n: int) -> None:
        shape = {"m": inputs.numel() // inputs.shape[-1], "k": inputs.shape[-1], "n": n}
        self._found.append({"layer": layer, "kind": "static_matmul", "function": "linear", **shape})

    def _recurrent(self, name: str, args: Any) -> None:
        """The matrices of a recurrent layer, once for every token; its gates are not recorded."""
        rows = args[0].numel() // args[0].shape[-1]
        for weight in _tensors(args):
            if isinstance(weight, nn.Parameter) and weight.dim() == 2:
                self._product(weight, name, rows, weight.shape[1], weight.shape[0], 1)


_PRODUCTS: dict[str, Callable[..., None]] = {
    **dict.fromkeys(("matmul", "rmatmul", "mm", "bmm", "mv", "dot", "addmm", "baddbmm"), Recorder._matmul),
    **{f"conv{kind}{size}d": Recorder._conv for kind in ("", "_transpose") for size in (1, 2, 3)},
    "linear": Recorder._linear,
    "einsum": Recorder._einsum,
    "scaled_dot_product_attention": Recorder._attention,
    "multi_head_attention_forward": Recorder._multi_head,
}


def live(tensor: Tensor) -> Tensor:
    """A meta tensor of the same shape, marked as depending on the inputs."""
    copy = torch.empty_like(tensor, device="meta")
    copy._traced = _LIVE  # type: ignore[attr-defined]
    return copy


def _whole(module: nn.Module) -> tuple[OperationKind, str] | None:
    """Modules written down as one operation, whatever they compute inside: activations and norms."""
    name = type(module).__name__
    if type(module).__module__ == "transformers.activations":
        return "activation", "gelu" if "GELU" in name else name.removesuffix("Activation").lower()
    if "Norm" in name and not any(module.children()) and not type(module).__module__.startswith("torch.nn.utils"):
        return "norm", next((norm for norm in _NORMS if norm.replace("_", "") in name.lower()), "norm")
    return None


def _same_shape(inputs: Tensor, *_: Any, **__: Any) -> Tensor:
    return torch.empty_like(inputs)


def _attended(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> Tensor:
    """The shape of an attention's result, with any number of key heads; computing it on meta is slow."""
    return torch.empty(*query.shape[:-1], value.shape[-1], dtype=query.dtype, device="meta")


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple | dict):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _tensors(item)


def _letters(term: str, tensor: Tensor, sizes: dict[str, int]) -> list[str]:
    """The letters of one einsum term, an ellipsis written out from the right; fills in their sizes."""
    before, dots, after = term.partition("...")
    hidden = tensor.dim() - len(before) - len(after) if dots else 0
    letters = [*before, *(f".{place}" for place in range(hidden, 0, -1)), *after]
    for letter, size in zip(letters, tensor.shape, strict=True):
        sizes[letter] = max(size, sizes.get(letter, 1))
    return letters
