"""Perplexity and accuracy: numbers in [tokens] or [batches], one float out."""

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cimphony.errors import DataError
from cimphony.evaluate.progress import progress_bar
from cimphony.nn.architectures import is_pretrained

_LONGEST_WINDOW = 2048


def perplexity(
    model: nn.Module,
    tokens: Tensor,
    *,
    window: int | None = None,
    stride: int | None = None,
    batch: int = 8,
    max_tokens: int | None = None,
    progress: bool = False,
) -> float:
    """exp of the mean negative log-likelihood per token; for a byte-level model, per byte.

    Every token but the first is scored exactly once, with at most `window` tokens before it.

    Args:
        model: a causal language model: token ids [batch, token] to logits [batch, token, word].
        tokens: the text as ids, int64 [token].
        window: tokens the model sees at once; None: as many as it has positions, at most 2048.
        stride: tokens newly scored by a window; smaller strides give more context; None: the window.
        batch: windows in one forward pass.
        max_tokens: use only this many tokens of the text.
        progress: show a bar on a terminal.

    Raises DataError for a text that is too short or of another vocabulary, impossible sizes, and logits that hold NaN.
    """
    tokens = tokens[:max_tokens]
    window, stride = _sizes(model, tokens, window, stride, batch)
    pieces = list(_windows(len(tokens) - 1, window, stride))
    device = next(model.parameters()).device
    options = {"use_cache": False} if is_pretrained(model) else {}
    total = 0.0
    groups = [pieces[start : start + batch] for start in range(0, len(pieces), batch)]
    with evaluating(model), progress_bar("perplexity", len(groups), progress) as advance:
        for group in groups:
            ids = torch.stack([tokens[start : start + window + 1] for start, _ in group]).to(device)
            losses = _losses(logits_of(model(ids[:, :-1], **options)), ids[:, 1:])
            total += sum(losses[row, window - new :].sum().item() for row, (_, new) in enumerate(group))
            advance()
    mean = total / (len(tokens) - 1)
    if not mean < math.log(torch.finfo(torch.float64).max):
        raise DataError(f"the model's mean loss is {mean} nats per token: too large for a perplexity")
    return math.exp(mean)


def accuracy(model: nn.Module, batches: Iterable[Any]) -> float:
    """Share of examples whose largest logit is the label's.

    Args:
        model: gives logits [example, class], as a tensor or as a Hugging Face output.
        batches: (inputs, labels) pairs or mappings with `labels` [example]; inputs are a tensor or a mapping. A list,
            where it is used more than once.

    Raises DataError without examples and for logits that hold NaN.
    """
    right = count = 0
    device = next(model.parameters()).device
    with evaluating(model):
        for one in batches:
            inputs, labels = _split(one)
            logits = logits_of(run_batch(model, inputs, device))
            if logits.isnan().any():
                raise DataError("the model's logits hold NaN; check its weights and inputs")
            right += int((logits.argmax(-1) == labels.to(device)).sum())
            count += labels.numel()
    if not count:
        raise DataError(
            "accuracy needs examples: the batches are empty (a generator is used up after one run; give a list)"
        )
    return right / count


def run_batch(model: nn.Module, inputs: Any, device: Any) -> Any:
    """The model's output for a tensor or for a mapping of tensors."""
    if isinstance(inputs, Mapping):
        return model(**{name: value.to(device) for name, value in inputs.items()})
    return model(inputs.to(device))


def logits_of(output: Any) -> Tensor:
    """Logits of a Hugging Face output, a tuple that begins with them, or a plain tensor."""
    if isinstance(output, Tensor):
        return output
    logits = getattr(output, "logits", None)
    logits = output[0] if logits is None and isinstance(output, tuple) else logits
    if not isinstance(logits, Tensor):
        raise DataError(f"the model gives no logits but a {type(output).__name__}; load it with its head")
    return logits


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; afterwards every module is in the mode it was in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode


def _losses(logits: Tensor, targets: Tensor) -> Tensor:
    """Negative log-likelihoods, float64 [window, token]."""
    losses = F.cross_entropy(logits.float().transpose(1, 2), targets, reduction="none").double()
    if losses.isnan().any():
        raise DataError("the model's logits hold NaN; check its weights and inputs")
    return losses


def _windows(targets: int, window: int, stride: int) -> Iterator[tuple[int, int]]:
    """(first input, newly scored tokens): windows of one length; the last is moved left to end with the text."""
    scored = min(window, targets)
    yield 0, scored
    while scored < targets:
        end = min(scored + stride, targets)
        yield end - window, end - scored
        scored = end


def _sizes(model: nn.Module, tokens: Tensor, window: int | None, stride: int | None, batch: int) -> tuple[int, int]:
    if tokens.dim() != 1 or tokens.is_floating_point() or len(tokens) < 2:
        raise DataError(f"tokens must be whole numbers [token], at least two, not {tokens.dtype} {list(tokens.shape)}")
    config = getattr(model, "config", None)
    words: int | None = getattr(config, "vocab_size", None)
    positions: int = getattr(config, "max_position_embeddings", None) or 0
    if words and int(tokens.max()) >= words:
        raise DataError(
            f"token {int(tokens.max())} is not in the model's vocabulary of {words}; use the model's tokenizer"
        )
    if window is None:
        window = min(positions or _LONGEST_WINDOW, _LONGEST_WINDOW)
    if positions and window > positions:
        raise DataError(f"window = {window} is longer than the model's {positions} positions; choose at most that")
    window = min(window, len(tokens) - 1)
    stride = window if stride is None else stride
    for name, value in (("window", window), ("stride", stride), ("batch", batch)):
        if value < 1:
            raise DataError(f"{name} = {value} is not possible; choose at least 1")
    return window, min(stride, window)


def _split(one: Any) -> tuple[Any, Tensor]:
    if isinstance(one, Mapping) and "labels" in one:
        return {name: value for name, value in one.items() if name != "labels"}, one["labels"]
    if isinstance(one, tuple | list) and len(one) == 2:
        return one[0], one[1]
    raise DataError(f"a batch is a pair (inputs, labels) or a mapping with 'labels', not {type(one).__name__}")
