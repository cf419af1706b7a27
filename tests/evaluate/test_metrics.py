"""Perplexity scores every token once; accuracy counts; what is not a number is an error."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from cimphony.errors import DataError
from cimphony.evaluate import accuracy, perplexity
from cimphony.evaluate.metrics import _windows

WORDS = 11


class Bigram(nn.Module):
    """Logits that depend on the present token only, so that windows cannot change the result."""

    def __init__(self):
        super().__init__()
        table = torch.randn(WORDS, WORDS, generator=torch.Generator().manual_seed(3))
        self.table = nn.Embedding.from_pretrained(table)

    def forward(self, ids):
        return self.table(ids)


def text(tokens, seed=0):
    return torch.randint(0, WORDS, (tokens,), generator=torch.Generator().manual_seed(seed))


def by_hand(model, tokens):
    table = model.table.weight.double()
    losses = [math.log(table[now].exp().sum().item()) - table[now, then].item() for now, then in pairwise(tokens)]
    return math.exp(sum(losses) / len(losses))


@pytest.mark.parametrize("window", [1, 5, 64, 200, None])
@pytest.mark.parametrize("stride", [1, 3, None])
@pytest.mark.parametrize("batch", [1, 4])
def test_every_token_is_scored_once(window, stride, batch):
    model, tokens = Bigram(), text(101)
    measured = perplexity(model, tokens, window=window, stride=stride, batch=batch)
    assert measured == pytest.approx(by_hand(model, tokens), rel=1e-6)


@given(st.integers(1, 300), st.integers(1, 40), st.integers(1, 40))
def test_windows_cover_each_target_once(targets, window, stride):
    scored = []
    length = min(window, targets)
    for start, new in _windows(targets, length, min(stride, length)):
        assert start >= 0
        assert start + length <= targets
        scored += range(start + length - new, start + length)
    assert scored == list(range(targets))


def test_more_context_is_used():
    config = LlamaConfig(
        vocab_size=WORDS, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(config)
    tokens = text(40)
    with torch.no_grad():
        losses = nn.functional.cross_entropy(model(tokens[None, :-1]).logits[0].double(), tokens[1:])
    assert perplexity(model, tokens) == pytest.approx(math.exp(losses), rel=1e-6)
    assert perplexity(model, tokens, window=2) != pytest.approx(math.exp(losses), rel=1e-6)


def test_max_tokens_takes_the_beginning():
    model, tokens = Bigram(), text(50)
    assert perplexity(model, tokens, max_tokens=20) == perplexity(model, tokens[:20])


def test_modes_are_given_back():
    model = nn.Sequential(Bigram(), nn.Dropout()).train()
    model[1].eval()
    perplexity(model, text(9))
    assert (model.training, model[0].training, model[1].training) == (True, True, False)


@pytest.mark.parametrize(
    ("tokens", "options", "message"),
    [
        (text(1), {}, "at least two"),
        (text(9).float(), {}, "whole numbers"),
        (text(9)[None], {}, "whole numbers"),
        (text(9), {"window": 0}, "window = 0"),
        (text(9), {"stride": -1}, "stride = -1"),
        (text(9), {"batch": 0}, "batch = 0"),
    ],
)
def test_impossible_sizes(tokens, options, message):
    with pytest.raises(DataError, match=message):
        perplexity(Bigram(), tokens, **options)


def test_limits_of_the_model():
    config = LlamaConfig(
        vocab_size=5,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=16,
    )
    model = LlamaForCausalLM(config)
    with pytest.raises(DataError, match="not in the model's vocabulary of 5"):
        perplexity(model, torch.arange(6))
    with pytest.raises(DataError, match="longer than the model's 16 positions"):
        perplexity(model, torch.zeros(40, dtype=torch.long), window=17)


@pytest.mark.parametrize(("value", "message"), [(math.nan, "hold NaN"), (1e6, "too large")])
def test_what_is_not_a_perplexity(value, message):
    model = Bigram()
    with torch.no_grad():
        model.table.weight[0, 1:] = value
    with pytest.raises(DataError, match=message):
        perplexity(model, torch.tensor([0, 0, 0]))


def test_accuracy_counts_all_kinds_of_batches():
    model = nn.Linear(3, 3, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.eye(3))
    inputs, labels = torch.eye(3), torch.tensor([0, 1, 1])
    mapping = {"input": inputs, "labels": torch.tensor([0, 1, 2])}
    assert accuracy(model, [(inputs, labels)]) == pytest.approx(2 / 3)
    assert accuracy(model, [(inputs, labels), mapping, ({"input": inputs[:2]}, labels[:2])]) == 7 / 8
    with pytest.raises(DataError, match="batches are empty"):
        accuracy(model, [])
    with pytest.raises(DataError, match="'labels'"):
        accuracy(model, [inputs])
    with pytest.raises(DataError, match="hold NaN"):
        accuracy(model, [(inputs * math.nan, labels)])


def test_a_model_without_a_head():
    config = LlamaConfig(vocab_size=5, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2)
    with pytest.raises(DataError, match="load it with its head"):
        perplexity(LlamaForCausalLM(config).model, torch.arange(4))
