"""trace: a model's operations and their shapes as a Workload. Nothing is computed and no weight is read."""

import copy
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from cimphony.errors import CimphonyError, DataError
from cimphony.nn.adapters import lora_layers
from cimphony.nn.architectures import is_pretrained, load_config, model_class
from cimphony.nn.convert import is_converted, restore_
from cimphony.nn.low_rank import RANKS, reshape_
from cimphony.nn.recorder import Recorder, live
from cimphony.workload import Operation, Phase, Workload

if TYPE_CHECKING:
    from transformers import PretrainedConfig

_ATTENTION = "cimphony_trace"


def trace(
    model: "nn.Module | PretrainedConfig | str | Path",
    *,
    prompt: int = 128,
    new_tokens: int = 0,
    batch: int = 1,
    image: int | tuple[int, ...] | None = None,
    inputs: Any = None,
    name: str | None = None,
) -> Workload:
    """The operations of one request, from shapes alone: on the meta device, in seconds, for any size of model.

    Prefill is one forward pass over the prompt. Decode is `new_tokens` passes of one token each; the one at step i
    (from 0) attends to `prompt + i + 1` tokens. Steps are written as one or two groups at the mean context, so sums
    over steps are exact for all that is linear in the context. Attention is counted as the full square, masked or
    not, with one group per query head and batch entry. A model that is to generate computes its output head for the
    last position of the prompt only, as `generate` does; with `new_tokens=0` for every position. Adapters in a model
    of PEFT's are operations of kind `adapter`, which a chip may run on a unit of their own.

    Args:
        model: a torch module, a Hugging Face model or configuration, or a name for `load_config`. It is not changed.
        prompt: tokens of the prompt, for language models.
        new_tokens: tokens generated after it.
        batch: requests served together; with `inputs`, whose shapes include it, only written down.
        image: for models of pictures: side, (height, width) or (channels, height, width); None: the model's own.
        inputs: for any other module, what its forward takes: one tensor or shape, a list of them, or a mapping by
            name; a shape is a tuple of sizes, batch included, of floating-point numbers (of integers under a name
            that ends in `ids`).
        name: of the workload; None: the model's own.

    Raises DataError where the model cannot run on shapes alone or the sizes are not possible.
    """
    for field, value, least in (("prompt", prompt, 1), ("new_tokens", new_tokens, 0), ("batch", batch, 1)):
        if not isinstance(value, int) or value < least:
            raise DataError(f"{field} = {value!r} is not possible; choose a whole number from {least}")
    if isinstance(model, str | Path):
        name, model = name or Path(model).name, load_config(model)
    shapes, name = _on_meta(model), name or _name(model)
    passes = _Passes(shapes, name)
    inside = passes.model
    if inputs is not None or image is not None or not is_pretrained(inside) or inside.main_input_name == "pixel_values":
        prompt = _run_once(passes, inputs, image, batch)
        if new_tokens:
            raise DataError(f"new_tokens = {new_tokens} is not possible: {name} runs once and generates nothing; use 0")
    else:
        _run_language(passes, prompt, new_tokens, batch)
    return Workload(
        model=name,
        operations=passes.operations,
        parameters=sum(parameter.numel() for parameter in shapes.parameters()),
        batch=batch,
        prompt=prompt,
        new_tokens=new_tokens,
    )


class _Passes:
    """Forward passes of one model on the meta device and the operations found in them."""

    def __init__(self, whole: nn.Module, name: str):
        self.whole = whole  # gives the layers their names
        self.model = _inside_peft(whole)
        self.name = name
        self.operations: list[Operation] = []

    def run(self, phase: Phase, repeat: int, *inputs: Any, **named: Any) -> Any:
        """One pass; with `repeat` 0 only for its result."""
        recorder = Recorder(self.whole, phase, max(repeat, 1))
        try:
            with torch.device("meta"), torch.no_grad(), recorder:
                result = self.model(*inputs, **named)
        except CimphonyError:
            raise
        except Exception as error:
            reason = (str(error).strip().splitlines() or [""])[0].partition(". ")[0].rstrip(".")
            raise DataError(
                f"{self.name} cannot be traced: {type(error).__name__}: {reason}. "
                "Its forward must accept these inputs and must not look at their values"
            ) from error
        self.operations += recorder.operations if repeat else []
        return result


def _run_language(passes: _Passes, prompt: int, new_tokens: int, batch: int) -> None:
    model = passes.model
    assert is_pretrained(model)
    if model.config.is_encoder_decoder:
        raise DataError(
            f"{passes.name} is an encoder-decoder; give its shapes, as "
            f"inputs={{'input_ids': (1, 128), 'decoder_input_ids': (1, 1)}}"
        )
    if new_tokens and not model.can_generate():
        raise DataError(f"new_tokens = {new_tokens} is not possible: {passes.name} does not generate text; use 0")
    _check_positions(passes, prompt + new_tokens)
    last = (
        {"logits_to_keep": 1} if new_tokens and "logits_to_keep" in inspect.signature(model.forward).parameters else {}
    )
    cached = {"use_cache": True} if new_tokens else {}
    result = passes.run("prefill", 1, _ids(batch, prompt), **last, **cached)
    kept = prompt
    for past, repeat in _mean_pasts(prompt, new_tokens):
        cache = getattr(result, "past_key_values", None)
        if cache is None:
            raise DataError(
                f"{passes.name} keeps no key-value cache, so its decode phase cannot be traced; use new_tokens=0"
            )
        if past > kept:
            passes.run("decode", 0, _ids(batch, past - kept), past_key_values=cache, **last, **cached)
        result = passes.run("decode", repeat, _ids(batch, 1), past_key_values=cache, **cached)
        kept = past + 1  # the pass has added its own token


def _mean_pasts(prompt: int, new_tokens: int) -> list[tuple[int, int]]:
    """(tokens in the cache, steps): pasts prompt ... prompt + new_tokens - 1 as at most two groups of the same sum."""
    if new_tokens == 0:
        return []
    low = prompt + (new_tokens - 1) // 2
    if new_tokens % 2:
        return [(low, new_tokens)]
    return [(low, new_tokens // 2), (low + 1, new_tokens // 2)]


def _ids(batch: int, tokens: int) -> Tensor:
    return live(torch.empty(batch, tokens, dtype=torch.long, device="meta"))


def _check_positions(passes: _Passes, tokens: int) -> None:
    """On the meta device a position beyond the table would pass unseen."""
    most = getattr(passes.model.config, "max_position_embeddings", None)
    learned = any(
        isinstance(module, nn.Embedding)
        and name.rsplit(".", 1)[-1] in ("wpe", "position_embeddings", "embed_positions")
        for name, module in passes.model.named_modules()
    )
    if most and learned and tokens > most:
        raise DataError(
            f"prompt + new_tokens = {tokens} is too long: {passes.name} has {most} positions; use at most {most}"
        )


def _run_once(passes: _Passes, inputs: Any, image: Any, batch: int) -> int:
    """One pass over pictures or given inputs; returns the number of positions: patches, pixels or tokens."""
    model = passes.model
    if inputs is None:
        return _run_image(passes, image, batch)
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    if isinstance(inputs, Mapping):
        tensors = {key: _as_live(value, torch.long if key.endswith("ids") else dtype) for key, value in inputs.items()}
        passes.run("prefill", 1, **tensors)
        first = next(iter(tensors.values()))
    else:
        single = isinstance(inputs, Tensor) or all(isinstance(size, int) for size in inputs)
        listed = [_as_live(value, dtype) for value in ([inputs] if single else inputs)]
        passes.run("prefill", 1, *listed)
        first = listed[0]
    if first.dim() >= 4:
        return first[0, 0].numel()
    return first.shape[1] if first.dim() == 3 or (first.dim() == 2 and not first.is_floating_point()) else 1


def _as_live(value: Any, dtype: torch.dtype) -> Tensor:
    if isinstance(value, Tensor):
        return live(value)
    if isinstance(value, tuple | list) and all(isinstance(size, int) and size > 0 for size in value):
        return live(torch.empty(tuple(value), dtype=dtype, device="meta"))
    raise DataError(
        f"inputs: {value!r} is neither a tensor nor a shape; give a tuple of positive sizes such as (1, 3, 32, 32)"
    )


def _run_image(passes: _Passes, image: Any, batch: int) -> int:
    config = getattr(passes.model, "config", None)
    own = _shape(getattr(config, "image_size", None), getattr(config, "num_channels", 3))
    shape = _shape(image, own[0] if own else 3) or own
    if shape is None:
        raise DataError(
            f"{passes.name}: give image, its side, or inputs, shapes as its forward takes, as in inputs=(1, 3, 32, 32)"
        )
    pixels = live(torch.empty(batch, *shape, device="meta"))
    if config is None:
        passes.run("prefill", 1, pixels)
    else:
        scaled = {} if shape == own else {"interpolate_pos_encoding": True}
        passes.run("prefill", 1, pixel_values=pixels, **scaled)
    patch = _shape(getattr(config, "patch_size", None), 1) or (1, 1, 1)
    return (shape[1] // patch[1]) * (shape[2] // patch[2])


def _shape(size: Any, channels: int) -> tuple[int, int, int] | None:
    """(channels, height, width) from a side, (height, width) or all three."""
    if size is None:
        return None
    sizes = (size, size) if isinstance(size, int) else tuple(size)
    if len(sizes) not in (2, 3) or any(not isinstance(one, int) or one < 1 for one in sizes):
        raise DataError(f"image = {size!r} is not a size; give a side, (height, width) or (channels, height, width)")
    return sizes if len(sizes) == 3 else (channels, *sizes)  # type: ignore[return-value]


def _name(model: Any) -> str:
    config = getattr(model, "config", model)
    named = getattr(config, "name_or_path", "") or getattr(config, "model_type", "")
    return Path(named).name or type(model).__name__


# --- copies without data -----------------------------------------------------


class _WithoutData(TorchFunctionMode):
    """Every tensor copied in this context becomes a meta tensor: a deep copy of a model takes no memory."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in ("clone", "__deepcopy__"):
            result = torch.empty_like(args[0], device="meta")
            for memo in args[1:]:
                memo[id(args[0])] = result
            return result
        return func(*args, **(kwargs or {}))


def _on_meta(model: Any) -> nn.Module:
    """A copy on the meta device, in evaluation mode, that shares nothing with the model."""
    if isinstance(model, nn.Module) and not isinstance(model, torch.jit.ScriptModule):
        with _WithoutData():
            shapes = copy.deepcopy(getattr(model, "_orig_mod", model))
        if is_converted(shapes):
            restore_(shapes)
    else:
        shapes = _from_config(model)
    inside = _inside_peft(shapes)
    if is_pretrained(inside) and inside._can_set_attn_implementation():
        from transformers import AttentionInterface

        AttentionInterface.register(_ATTENTION, _attention)
        inside.set_attn_implementation(_ATTENTION)
    return shapes.eval()


def _from_config(config: Any) -> nn.Module:
    from transformers import PretrainedConfig

    if not isinstance(config, PretrainedConfig):
        raise DataError(
            f"cannot trace a {type(config).__name__}; give a torch module, a Hugging Face configuration or a name"
        )
    config = copy.deepcopy(config)
    with torch.device("meta"):
        shapes = model_class(config)(config)
        return reshape_(shapes, getattr(config, RANKS, None) or {})


def _inside_peft(model: nn.Module) -> nn.Module:
    """The model that PEFT wraps, adapters inside; any other as it is."""
    return model.get_base_model() if lora_layers(model) and hasattr(model, "get_base_model") else model  # type: ignore[operator]


def _attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Any, **_: Any
) -> tuple[Tensor, None]:
    """Attention as transformers calls it, for a Recorder: [batch, head, token, feature], key heads not repeated."""
    return F.scaled_dot_product_attention(query, key, value).transpose(1, 2), None
