"""The memory of gain-cell attention between tokens: a ring of columns, as a cache that transformers' generate takes."""

import weakref
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicCache

from cimphony.errors import DataError, StateError


class RingLayer(CacheLayerMixin):
    """The columns of one layer: stored voltages [batch, head, column, feature], their write times, a pointer.

    A token is written into column `count % window`, over the one of a window ago. Memory does not grow with the text.
    """

    is_sliding = False

    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self._attention: weakref.ref[Any] = weakref.ref(attention)
        self.count = 0  # tokens written so far; modulo the window it is the write pointer
        self.time: Tensor | None = None  # [column], -1: never written
        self.valid: Tensor | None = None  # bool [batch, column]
        self.texts: list[int] | None = None  # a number for each entry of the batch, for random draws

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing: the columns are made when the first voltages are written."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Announce the ring to its layer, which writes the new tokens itself: only it knows their voltages."""
        attention = self._attention()
        if attention is None:
            raise StateError("this cache belongs to a model that is gone; make a new one: cim.nn.GainCellCache(model)")
        attention.incoming = self
        return key_states, value_states

    def write(
        self, keys: Tensor, values: Tensor, time: Tensor, valid: Tensor | None, window: int
    ) -> tuple[Tensor, ...]:
        """Write voltages of new tokens [batch, head, token, feature]; return all columns these tokens may read.

        One token reads the ring after it was written. Several at once read the ring as it was, beside themselves.
        """
        if valid is None:
            valid = torch.ones(keys.shape[0], keys.shape[2], dtype=torch.bool, device=keys.device)
        if self.keys is None:
            self._make(keys, values, window)
        state, new = self._state(), (keys, values, time, valid)
        readable = new
        if self.count:
            readable = tuple(torch.cat(both, axis) for *both, axis in zip(state, new, (2, 2, 0, 1), strict=True))
        last = slice(-min(window, len(time)), None)
        slot = time[last] % window
        for held, fresh in zip(state[:2], new[:2], strict=True):
            held[:, :, slot] = fresh[:, :, last].detach()
        state[2][slot], state[3][:, slot] = time[last], valid[:, last]
        self.count += len(time)
        return state if len(time) == 1 else readable

    def _make(self, keys: Tensor, values: Tensor, window: int) -> None:
        shape = (*keys.shape[:2], window, keys.shape[3])
        self.keys, self.values = torch.zeros(shape).to(keys), torch.zeros(shape).to(values)
        self.time = torch.full((window,), -1, dtype=torch.int64, device=keys.device)
        self.valid = torch.zeros(keys.shape[0], window, dtype=torch.bool, device=keys.device)
        self.is_initialized = True

    def _state(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        assert self.keys is not None
        assert self.values is not None
        assert self.time is not None
        assert self.valid is not None
        return self.keys, self.values, self.time, self.valid

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Length and offset of the padding mask: the new tokens, the ring remembers the others."""
        return query_length, self.count

    def get_seq_length(self) -> int:
        """Tokens written so far."""
        return self.count

    def get_max_length(self) -> int:
        """No maximum: the oldest token is overwritten."""
        return -1

    def reset(self) -> None:
        """Forget the text."""
        self.keys = self.values = self.time = self.valid = self.texts = None
        self.count, self.is_initialized = 0, False

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Copy the columns of the beams that go on."""
        self._select(beam_idx)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat every entry of the batch."""
        if self.keys is not None:
            self._select(torch.arange(self.keys.shape[0], device=self.keys.device).repeat_interleave(repeats))

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep some entries of the batch."""
        self._select(indices)

    def _select(self, entries: Tensor) -> None:
        if self.keys is None:
            return
        keys, values, _, valid = self._state()
        self.keys, self.values, self.valid = keys[entries], values[entries], valid[entries]
        if self.texts is not None:
            self.texts = [self.texts[int(entry)] for entry in entries]


class GainCellCache(Cache):
    """The rings of all layers of a converted model; `generate` makes one by itself, a loop of one's own may."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(layers=rings(model))


def rings(model: nn.Module) -> list[Any]:
    """One empty ring for each gain-cell layer, in the model's order."""
    found: list[Any] = [module.cimphony for module in model.modules() if hasattr(module, "cimphony")]
    if not found:
        raise StateError("the model has no gain-cell attention: cim.convert_(model, chip) comes first")
    return [RingLayer(attention) for attention in found]


def fit_cache(model: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
    """Before a forward pass: give an empty dynamic cache, as `generate` makes one, the rings as its layers."""
    cache = named.get("past_key_values")
    if cache is None or (all(isinstance(layer, RingLayer) for layer in cache.layers) and cache.layers):
        return
    if not isinstance(cache, DynamicCache):
        raise DataError(
            f"a {type(cache).__name__} cannot hold the columns of gain cells; leave past_key_values and "
            "cache_implementation out, or pass cim.nn.GainCellCache(model)"
        )
    if cache.get_seq_length() == 0:
        cache.layers, cache.layer_class_to_replicate = rings(model), None
