"""Counts from a traced model equal counts by hand: closed formulas, written without the code under test."""

import copy
import time

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    BertConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen3Config,
    T5Config,
    ViTConfig,
    ViTForImageClassification,
)

from cimphony.chip import load_chip
from cimphony.errors import DataError
from cimphony.nn import analog_layers, convert_
from cimphony.nn.trace import trace
from cimphony.workload import Workload

TINY_LLAMA = LlamaConfig(
    vocab_size=50,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    tie_word_embeddings=True,
)


def sizes(workload, layer, phase="prefill"):
    """(kind, function, m, k, n, groups) of the products of one layer in one phase."""
    return [
        (one.kind, one.function, one.m, one.k, one.n, one.groups)
        for one in workload.operations
        if one.layer == layer and one.phase == phase and one.macs
    ]


def elements(workload, kind):
    return sum(one.elements * one.repeat for one in workload.select(kind))


# --- the four models of the acceptance test ----------------------------------


def test_bert_large_by_hand():
    tokens, width, inner, layers, heads, words = 128, 1024, 4096, 24, 16, 30522
    start = time.process_time()
    work = trace("bert-large", prompt=tokens)
    assert time.process_time() - start < 5
    blocks = layers * tokens * (4 * width * width + 2 * width * inner)
    heads_on_top = width * width + width * 2  # pooler and two classes, on the first token
    assert work.macs("static_matmul") == blocks + heads_on_top
    assert work.macs("dynamic_matmul") == layers * 2 * heads * tokens * tokens * (width // heads)
    embeddings = (words + 512 + 2) * width + 2 * width
    block = 4 * (width * width + width) + (width * inner + inner) + (inner * width + width) + 4 * width
    assert work.parameters == embeddings + layers * block + (width * width + width) + (2 * width + 2)
    assert elements(work, "softmax") == layers * heads * tokens * tokens
    assert elements(work, "activation") == layers * tokens * inner + width
    assert elements(work, "norm") == (2 * layers + 1) * tokens * width
    assert elements(work, "embedding") == 3 * tokens * width
    assert elements(work, "elementwise") == (2 * layers + 2) * tokens * width  # residuals and the sum of embeddings
    assert (work.model, work.prompt, work.new_tokens, work.batch) == ("bert-large", tokens, 0, 1)


@pytest.mark.parametrize(("prompt", "new_tokens", "batch"), [(512, 100, 1), (300, 33, 4), (7, 1, 2)])
def test_gpt2_by_hand(prompt, new_tokens, batch):
    width, layers, heads, words, positions = 768, 12, 12, 50257, 1024
    start = time.process_time()
    work = trace("gpt2", prompt=prompt, new_tokens=new_tokens, batch=batch)
    assert time.process_time() - start < 5
    block = 12 * width * width  # 3 for query, key and value, 1 for the output, 8 for the two inner layers
    assert work.macs("static_matmul", "prefill") == batch * (prompt * layers * block + words * width)
    assert work.macs("static_matmul", "decode") == batch * new_tokens * (layers * block + words * width)
    assert work.macs("dynamic_matmul", "prefill") == batch * layers * 2 * prompt * prompt * width
    contexts = sum(prompt + step + 1 for step in range(new_tokens))
    assert work.macs("dynamic_matmul", "decode") == batch * layers * 2 * contexts * width
    softmax = batch * layers * heads * (prompt * prompt + contexts)
    assert elements(work, "softmax") == softmax
    biases = (3 * width + width + 4 * width + width) + 4 * width
    assert work.parameters == (words + positions) * width + layers * (block + biases) + 2 * width
    assert sum(one.repeat for one in work.operations if one.layer == "lm_head" and one.phase == "decode") == new_tokens


@pytest.mark.parametrize(
    ("name", "width", "inner", "layers", "heads", "keys", "tied"),
    [("llama-3.2-1b", 2048, 8192, 16, 32, 8, True), ("llama-3-70b", 8192, 28672, 80, 64, 8, False)],
)
def test_llama_by_hand(name, width, inner, layers, heads, keys, tied):
    words, prompt, new_tokens = 128256, 1024, 128
    start = time.process_time()
    work = trace(name, prompt=prompt, new_tokens=new_tokens)
    assert time.process_time() - start < 5
    head = width // heads
    block = 2 * width * width + 2 * width * keys * head + 3 * width * inner
    assert work.macs("static_matmul", "prefill") == prompt * layers * block + words * width
    assert work.macs("static_matmul", "decode") == new_tokens * (layers * block + words * width)
    assert work.macs("dynamic_matmul", "prefill") == layers * 2 * prompt * prompt * width
    contexts = new_tokens * prompt + new_tokens * (new_tokens + 1) // 2
    assert work.macs("dynamic_matmul", "decode") == layers * 2 * contexts * width
    assert work.parameters == (1 if tied else 2) * words * width + layers * (block + 2 * width) + width
    assert elements(work, "norm") == (2 * layers * (prompt + new_tokens) + prompt + new_tokens) * width
    assert elements(work, "activation") == layers * (prompt + new_tokens) * inner
    stored = {one.layer: one.weights for one in work.select("static_matmul")}
    assert sum(stored.values()) == layers * block + words * width
    assert sizes(work, "model.layers.0.self_attn") == [
        ("dynamic_matmul", "query_key", prompt, head, prompt, heads),
        ("dynamic_matmul", "attention_value", prompt, prompt, head, heads),
    ]


def test_vit_by_hand():
    width, inner, layers, patches = 768, 3072, 12, 196
    work = trace("vit-base", batch=3)
    tokens = patches + 1
    blocks = layers * tokens * (4 * width * width + 2 * width * inner)
    assert work.macs("static_matmul") == 3 * (patches * 3 * 16 * 16 * width + blocks + width * 1000)
    assert work.macs("dynamic_matmul") == 3 * layers * 2 * tokens * tokens * width
    assert work.prompt == patches
    small = trace("vit-base", image=(112, 224))
    assert small.prompt == 98
    assert sizes(small, "vit.embeddings.patch_embeddings.projection")[0][2:] == (98, 768, 768, 1)


# --- decode --------------------------------------------------------------------


def test_head_runs_on_every_position_unless_the_model_generates():
    assert sizes(trace(TINY_LLAMA, prompt=9), "lm_head")[0][2] == 9
    assert sizes(trace(TINY_LLAMA, prompt=9, new_tokens=1), "lm_head")[0][2] == 1


def test_decode_groups_carry_the_mean_context():
    even = trace(TINY_LLAMA, prompt=10, new_tokens=6)
    found = [(one.n, one.repeat) for one in even.operations if one.function == "query_key" and one.phase == "decode"]
    assert sorted(set(found)) == [(13, 3), (14, 3)]  # contexts 11 to 16
    odd = trace(TINY_LLAMA, prompt=10, new_tokens=5)
    found = [(one.n, one.repeat) for one in odd.operations if one.function == "query_key" and one.phase == "decode"]
    assert set(found) == {(13, 5)}


def test_grouped_queries_count_query_heads():
    work = trace(TINY_LLAMA, prompt=5, new_tokens=1, batch=3)
    assert sizes(work, "model.layers.1.self_attn", "decode") == [
        ("dynamic_matmul", "query_key", 1, 8, 6, 12),
        ("dynamic_matmul", "attention_value", 1, 6, 8, 12),
    ]


# --- against torch's own counter, on models that really run ----------------------


def flops_of(model, inputs):
    if hasattr(model, "set_attn_implementation"):
        model.set_attn_implementation("eager")  # the counter does not know the fused attention of a CPU
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(inputs)
    return counter.get_total_flops()


def test_agrees_with_torchs_counter():
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 50, (2, 11), generator=generator)
    special = {"bos_token_id": 0, "eos_token_id": 0}
    gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=16, n_head=2, n_layer=2, **special)).eval()
    assert 2 * trace(gpt2, prompt=11, batch=2).macs() == flops_of(gpt2, ids)
    pixels = torch.zeros(2, 3, 16, 16)
    small = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    config = ViTConfig(image_size=16, patch_size=4, **small)
    vit = ViTForImageClassification(config).eval()
    assert 2 * trace(vit, batch=2).macs() == flops_of(vit, pixels)
    llama = LlamaForCausalLM(TINY_LLAMA).eval()
    assert 2 * trace(llama, prompt=11, batch=2).macs() == flops_of(llama, ids)
    grouped = nn.Conv2d(8, 16, 3, groups=4, stride=2)
    cnn = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), grouped, nn.ConvTranspose2d(16, 4, 2))
    assert 2 * trace(cnn, inputs=(2, 3, 16, 16)).macs() == flops_of(cnn, torch.zeros(2, 3, 16, 16))


# --- plain torch modules ---------------------------------------------------------


def test_convolutions():
    cnn = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, groups=8, stride=2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 10),
    )
    work = trace(cnn, image=32, batch=2, name="cnn")
    assert sizes(work, "0") == [("static_matmul", "conv2d", 2 * 32 * 32, 27, 8, 1)]
    assert sizes(work, "3") == [("static_matmul", "conv2d", 2 * 15 * 15, 9, 1, 8)]
    assert sizes(work, "6") == [("static_matmul", "linear", 2, 8, 10, 1)]
    assert [one.kind for one in work.operations if not one.macs] == ["norm", "activation", "elementwise"]
    assert work.parameters == 3 * 8 * 9 + 16 + (8 * 9 + 8) + 90
    assert (work.model, work.prompt, work.batch) == ("cnn", 1024, 2)
    assert Workload.from_json(work.to_json()) == work


class OwnAttention(nn.Module):
    def __init__(self):
        super().__init__()
        self.query = nn.Parameter(torch.zeros(8, 6))
        self.key = nn.Parameter(torch.zeros(6, 8))
        self.out = nn.utils.parametrizations.weight_norm(nn.Linear(8, 4))
        self.experts = nn.Parameter(torch.zeros(3, 4, 5))
        self.plain = torch.ones(8)  # neither parameter nor buffer

    def forward(self, x):
        scores = torch.einsum("bqd,bkd->bqk", x @ self.query, torch.einsum("bti,oi->bto", x, self.key))
        mixed = F.softmax(scores, -1) @ (x + self.plain)
        return torch.einsum("bti,eio->beto", self.out(mixed), self.experts)


class OwnExperts(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2, 8, 8))

    def forward(self, x):
        return F.grouped_mm(x, self.weight, offs=torch.tensor([1, 4], dtype=torch.int32))


def test_products_written_by_hand():
    work = trace(OwnAttention(), inputs=(2, 5, 8))
    assert sizes(work, "model.query") == [("static_matmul", "linear", 10, 8, 6, 1)]
    assert sizes(work, "model.key") == [("static_matmul", "linear", 10, 8, 6, 1)]
    assert sizes(work, "model") == [
        ("dynamic_matmul", "query_key", 5, 6, 5, 2),
        ("dynamic_matmul", "attention_value", 5, 5, 8, 2),
    ]
    assert sizes(work, "out") == [("static_matmul", "linear", 10, 8, 4, 1)]
    assert sizes(work, "model.experts") == [("static_matmul", "linear", 10, 4, 15, 1)]
    assert elements(work, "norm") == 0  # the norm of a weight is not work of the model


def test_torchs_transformer_and_recurrent_layers():
    layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
    work = trace(layer, inputs=[(2, 10, 32)])
    assert work.macs("static_matmul") == 20 * (4 * 32 * 32 + 2 * 32 * 64)
    assert work.macs("dynamic_matmul") == 2 * 4 * 2 * 10 * 10 * 8
    lstm = trace(nn.LSTM(8, 16, 2), inputs=(5, 3, 8))
    assert lstm.macs() == 15 * 4 * 16 * (8 + 16 + 16 + 16)


def test_shared_layers_run_twice_and_are_stored_once():
    shared = nn.Linear(4, 4)
    work = trace(nn.Sequential(shared, nn.ReLU(), shared), inputs=(3, 4))
    assert sizes(work, "0") == [("static_matmul", "linear", 3, 4, 4, 1)] * 2
    assert work.parameters == 20


def test_encoder_decoder_by_inputs():
    config = T5Config(vocab_size=50, d_model=16, d_kv=4, d_ff=32, num_layers=1, num_heads=4)
    work = trace(config, inputs={"input_ids": (1, 7), "decoder_input_ids": (1, 3)})
    attention, inner = 4 * 16 * 16, 2 * 16 * 32
    encoder = 7 * (attention + inner)
    decoder = 3 * (attention + 2 * 16 * 16 + inner) + 7 * 2 * 16 * 16  # cross keys and values from the encoder
    assert work.macs("static_matmul") == encoder + decoder + 3 * 16 * 50
    assert work.macs("dynamic_matmul") == 2 * 16 * (7 * 7 + 3 * 3 + 3 * 7)


# --- the model is left alone -------------------------------------------------------


def test_the_model_is_not_changed():
    model = LlamaForCausalLM(TINY_LLAMA).train()
    before, config = copy.deepcopy(model.state_dict()), copy.deepcopy(model.config)
    state = torch.get_rng_state()
    work = trace(model, prompt=6, new_tokens=3)
    assert torch.equal(state, torch.get_rng_state())
    assert model.training
    assert model.config == config
    assert model.config._attn_implementation == config._attn_implementation
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert work.operations == trace(TINY_LLAMA, prompt=6, new_tokens=3).operations


def test_qwen3_norms_of_queries_and_keys():
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32}
    config = Qwen3Config(vocab_size=99, hidden_size=64, intermediate_size=96, num_hidden_layers=1, **heads)
    work = trace(config, prompt=7)
    assert elements(work, "norm") == 7 * (3 * 64 + 4 * 32 + 2 * 32)
    assert work.macs("static_matmul") == 7 * (64 * 128 * 2 + 2 * 64 * 64 + 3 * 64 * 96 + 64 * 99)


# --- one clear error for each bad input ---------------------------------------------


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("gpt2", {"prompt": 0}, "prompt = 0"),
        ("gpt2", {"new_tokens": -1}, "new_tokens = -1"),
        ("gpt2", {"batch": 0}, "batch = 0"),
        ("gpt2", {"prompt": 1000, "new_tokens": 100}, "at most 1024"),
        ("bert-large", {"prompt": 513}, "at most 512"),
        ("bert-large", {"new_tokens": 5}, "does not generate"),
        ("vit-base", {"new_tokens": 5}, "generates nothing"),
        ("vit-base", {"image": (3, 3, 3, 3)}, "image = "),
        (nn.Linear(3, 4), {}, "give image, its side, or inputs"),
        (nn.Linear(3, 4), {"inputs": (1, 5)}, "cannot be traced"),
        (nn.Linear(3, 4), {"inputs": ["x"]}, "neither a tensor nor a shape"),
        (3, {}, "cannot trace a int"),
        ("no-such-folder/a/b", {}, "does not exist"),
        (T5Config(num_layers=1), {}, "encoder-decoder"),
        (OwnExperts(), {"inputs": (4, 8)}, "cannot count torch.grouped_mm; experts must follow"),
    ],
)
def test_bad_input(model, options, message):
    with pytest.raises(DataError, match=message):
        trace(model, **options)


def test_reading_values_is_an_error():
    class Looks(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    with pytest.raises(DataError, match="must not look at their values"):
        trace(Looks(), inputs=(2, 2))


def test_bert_without_named_architecture_is_a_classifier():
    config = BertConfig(vocab_size=30, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    assert sizes(trace(config, prompt=4), "classifier") == [("static_matmul", "linear", 1, 16, 2, 1)]


def test_a_converted_model_is_traced_as_the_model_it_was():
    model = nn.Sequential(nn.Conv2d(3, 8, 3, groups=1), nn.Flatten(), nn.Linear(8, 4))
    digital = trace(model, inputs=(2, 3, 3, 3))
    convert_(model, load_chip("hyflexpim"))
    assert trace(model, inputs=(2, 3, 3, 3)).operations == digital.operations
    assert len(analog_layers(model)) == 2
