"""All tokens at once and token by token in a ring of columns are the same numbers, also beyond the window."""

from typing import Any

import pytest
import torch

import cimphony as cim
from tests.gain_cell.models import chip, gpt2, llama, one_by_one, tokens

NOISE = {"gain": 0.05, "offset": 0.2e-6, "comparator": 1e-6, "write": 0.01, "read": 0.5e-6, "jitter": 0.2e-9}


@pytest.mark.parametrize(("make", "batch", "length"), [(gpt2, 1, 130), (gpt2, 3, 65), (llama, 2, 80)])
@pytest.mark.parametrize("retention", [None, 5e-3, 20e-6])
def test_parallel_equals_token_by_token(make: Any, batch: int, length: int, retention: float | None) -> None:
    model = cim.convert_(make(), chip(window=192, cell__retention=retention))
    ids = tokens(batch, length)
    with torch.no_grad():
        whole = model(ids).logits
    assert whole.std() > 0.01
    torch.testing.assert_close(one_by_one(model, ids), whole, rtol=0, atol=1e-5)


def test_in_single_precision_only_values_at_the_edge_of_a_level_differ() -> None:
    """Projections round differently for one token and many; a value at a quantiser's edge may take the other side."""
    model = cim.convert_(llama().float(), chip(window=128))
    ids = tokens(2, 100)
    with torch.no_grad():
        off = (one_by_one(model, ids) - model(ids).logits).abs().amax(dim=-1)
    assert (off < 1e-5).float().mean() > 0.95


@pytest.mark.parametrize("window", [64, 100, 128])
def test_the_ring_beyond_its_window(window: int) -> None:
    same = {"cell__retention": 50e-6, "token_period": 130e-9}
    model = cim.convert_(llama(key_heads=1), chip(window=window, **same))
    ids = tokens(1, 2 * window + 20)
    with torch.no_grad():
        whole = model(ids).logits
    torch.testing.assert_close(one_by_one(model, ids), whole, rtol=0, atol=1e-5)
    with torch.no_grad():  # and the window matters
        other = cim.convert_(cim.restore_(model), chip(window=256, **same))(ids).logits
    torch.testing.assert_close(other[:, :window], whole[:, :window], rtol=0, atol=1e-9)
    assert not torch.allclose(other[:, window + 1], whole[:, window + 1], atol=1e-3)


def test_chunks_of_any_size_read_the_same_ring() -> None:
    model = cim.convert_(gpt2(), chip(window=70))
    ids = tokens(2, 200)
    cache = cim.nn.GainCellCache(model)
    with torch.no_grad():
        parts = [model(part, past_key_values=cache).logits for part in ids.split([90, 1, 1, 58, 50], dim=1)]
        torch.testing.assert_close(torch.cat(parts, dim=1), model(ids).logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize("make", [gpt2, llama])
def test_noise_is_the_same_in_both_executions(make: Any) -> None:
    model = cim.program_(cim.convert_(make(), chip(window=64, noise=NOISE)), seed=3)
    ids = tokens(2, 100)
    ring = one_by_one(model, ids)
    cim.program_(model, seed=3)
    with torch.no_grad():
        whole = model(ids).logits
    torch.testing.assert_close(ring, whole, rtol=0, atol=1e-5)


def test_left_padding_reads_nothing() -> None:
    model = cim.convert_(llama(), chip(window=128, cell__retention=50e-6))
    short = tokens(1, 20)
    padded = torch.cat((torch.zeros(1, 5, dtype=torch.int64), short), dim=1)
    mask = (torch.arange(25) >= 5).long()[None]
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
    with torch.no_grad():
        alone = model(short).logits
        beside = model(padded, attention_mask=mask, position_ids=positions).logits[:, 5:]
    torch.testing.assert_close(beside, alone, rtol=0, atol=1e-9)
    one, two = (
        model.generate(ids, attention_mask=given, max_new_tokens=8, do_sample=False)[0, -8:]
        for ids, given in ((short, None), (padded, mask))
    )
    assert torch.equal(one, two)


def test_generate_with_a_window_shorter_than_the_text() -> None:
    """generate is the ring's: its greedy choice at every step is the parallel form's over the whole text."""
    model = cim.convert_(llama(), chip(window=32))
    text = model.generate(tokens(2, 40), max_new_tokens=60, do_sample=False)
    assert text.shape == (2, 100)
    with torch.no_grad():
        chosen = model(text).logits[:, 39:-1].argmax(dim=-1)
    assert torch.equal(chosen, text[:, 40:])


@pytest.mark.parametrize("how", [{"num_beams": 3}, {"num_return_sequences": 2, "do_sample": True}])
def test_other_ways_to_generate(how: dict[str, Any]) -> None:
    model = cim.convert_(llama(), chip(window=32))
    assert model.generate(tokens(2, 40), max_new_tokens=10, **how).shape[1] == 50


def test_memory_does_not_grow_with_the_text() -> None:
    model = cim.convert_(llama(), chip(window=32))
    cache = cim.nn.GainCellCache(model)
    sizes = []
    for ids in tokens(1, 160).split(40, dim=1):
        with torch.no_grad():
            model(ids, past_key_values=cache)
        held = [value for layer in cache.layers for value in vars(layer).values() if isinstance(value, torch.Tensor)]
        sizes.append(sum(value.untyped_storage().nbytes() for value in held))
    assert len(set(sizes)) == 1
    assert cache.get_seq_length() == 160
    assert cache.layers[0].keys.shape == (1, 4, 32, 16)


def test_the_cache_of_generate_is_a_ring() -> None:
    model = cim.convert_(llama(), chip(window=32))
    found = model.generate(tokens(1, 40), max_new_tokens=5, return_dict_in_generate=True).past_key_values
    assert found.layers[0].keys.shape[2] == 32
    assert found.get_seq_length() == 44
    found.reset()
    assert found.get_seq_length() == 0


def test_entries_of_the_batch_can_be_chosen_and_repeated() -> None:
    model = cim.convert_(llama(), chip(window=32, noise={"read": 1e-6, "write": 0.01}))
    ids = tokens(2, 40)

    def follow(change: Any) -> torch.Tensor:
        cim.program_(model, seed=1)
        cache = cim.nn.GainCellCache(model)
        with torch.no_grad():
            model(ids[:, :-1], past_key_values=cache)
            return model(change(ids[:, -1:], cache), past_key_values=cache).logits

    def keep_second(last: torch.Tensor, cache: Any) -> torch.Tensor:
        cache.batch_select_indices(torch.tensor([1]))
        return last[1:]

    def twice(last: torch.Tensor, cache: Any) -> torch.Tensor:
        cache.batch_repeat_interleave(2)
        return last.repeat_interleave(2, dim=0)

    whole = follow(lambda last, _: last)
    torch.testing.assert_close(follow(keep_second), whole[1:], rtol=0, atol=1e-5)
    torch.testing.assert_close(follow(twice), whole.repeat_interleave(2, dim=0), rtol=0, atol=1e-5)
