"""convert_, program_, restore_, save, load_ and summary with attention on a unit; what cannot be done says so."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import nn

import cimphony as cim
from cimphony.nn import attention_layers
from tests.gain_cell.models import chip, gpt2, llama, tokens
from tests.gain_cell.test_two_executions import NOISE

SYSTEM = {"units.attention.window": 64, "units.attention.noise": NOISE}


@pytest.mark.parametrize("own", ["sdpa", "eager"])
@pytest.mark.parametrize("make", [gpt2, llama])
def test_restore_is_bit_exact(make: Any, own: str) -> None:
    model = make()
    model.set_attn_implementation(own)
    ids = tokens(2, 30)
    with torch.no_grad():
        digital, names = model(ids).logits, list(model.state_dict())
        cim.convert_(model, chip(window=64))
        assert not torch.allclose(model(ids).logits, digital, atol=1e-3)
        cim.restore_(model)
        assert torch.equal(model(ids).logits, digital)
    assert model.config._attn_implementation == own
    assert list(model.state_dict()) == names
    assert not model._forward_pre_hooks
    generated = model.generate(ids, max_new_tokens=4, do_sample=False)
    assert torch.equal(generated, make().generate(ids, max_new_tokens=4, do_sample=False))


def test_a_copy_is_a_model_of_its_own() -> None:
    model = cim.convert_(llama(), chip(window=16))
    twin = copy.deepcopy(model)
    cim.restore_(model)
    assert len(attention_layers(twin)) == 2
    assert twin.generate(tokens(1, 20), max_new_tokens=3).shape == (1, 23)
    cim.restore_(twin)
    assert not attention_layers(twin)


@pytest.mark.parametrize("make", [gpt2, llama])
def test_save_then_load_keeps_the_scalers(make: Any, tmp_path: Path) -> None:
    model = cim.program_(cim.convert_(make(), chip(window=64, noise=NOISE)), seed=5)
    generator = torch.Generator().manual_seed(1)
    for attention in attention_layers(model).values():
        for scaler in attention.scalers.values():
            scaler.gain.data *= 1 + torch.rand(scaler.gain.shape, generator=generator)
            scaler.mean += torch.rand(scaler.mean.shape, generator=generator)
    cim.save(model, tmp_path)
    twin = type(model).from_pretrained(tmp_path, dtype=torch.float64)
    cim.load_(twin, tmp_path)
    cim.program_(model, seed=5)
    own, loaded = model.state_dict(), twin.state_dict()
    assert sum("cimphony" in name for name in own) == 2 * 4 * 5
    assert all(torch.equal(own[name].to(value), value) for name, value in loaded.items())
    with torch.no_grad():
        assert torch.allclose(twin(tokens(1, 20)).logits, model(tokens(1, 20)).logits, atol=1e-12)


def test_one_seed_is_one_chip() -> None:
    model = cim.convert_(gpt2(), chip(window=64, noise=NOISE))
    ids, found = tokens(2, 20), []
    state = torch.random.get_rng_state()
    with torch.no_grad():
        for seed in (1, 1, 2):
            cim.program_(model, seed=seed)
            found.append(model(ids).logits)
        again = model(ids).logits
        cim.program_(model, seed=2)
        parts = torch.cat([model(ids[:1]).logits, model(ids[1:]).logits])
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    assert not torch.equal(again, found[2])  # another text, fresh noise
    torch.testing.assert_close(parts, found[2], rtol=0, atol=1e-9)  # a batch split in two
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.mark.parametrize("kind", NOISE)
def test_each_noise_alone_does_something(kind: str) -> None:
    ids = tokens(1, 20)
    with torch.no_grad():
        quiet = cim.convert_(gpt2(), chip(window=64))(ids).logits
        noisy = cim.convert_(gpt2(), chip(window=64, noise={kind: NOISE[kind]}))(ids).logits
    assert not torch.allclose(quiet, noisy, atol=1e-6)


def test_a_whole_system_runs_weights_and_attention() -> None:
    model = gpt2().float()
    described = cim.load_chip("pcm-256-gain-cell").replace(SYSTEM)
    cim.convert_(model, described)
    assert len(cim.nn.analog_layers(model)) == 9
    with cim.calibrate(model):
        model(tokens(2, 20))
    cim.age_(cim.program_(model, seed=1), seconds=60)
    assert model.generate(tokens(1, 20), max_new_tokens=3, do_sample=False).shape == (1, 23)
    work = cim.trace(model, prompt=16, new_tokens=2)
    assert {one.function for one in work.select("dynamic_matmul")} == {"query_key", "attention_value"}
    cim.restore_(model)
    assert not attention_layers(model)
    assert not cim.nn.analog_layers(model)


def test_the_summary_says_what_attention_runs_on() -> None:
    model = cim.convert_(llama(), chip(window=64, noise=NOISE))
    rows = {row["layer"]: row for row in cim.nn.summary_rows(model)}
    row = rows["model.layers.1.self_attn"]
    assert (row["runs_on"], row["kind"], row["window"]) == ("attention", "gain_cell_attention", 64)
    assert (row["heads"], row["key_heads"], row["size"]) == (4, 2, 16)
    assert row["decay_per_token"] == pytest.approx(2 * 61e-9 / 5e-3)
    assert rows["model.layers.1.mlp.up_proj"]["why"] == "the chip has no crossbar"
    assert "8 levels" in str(cim.summary(model))
    assert "2 layers of attention" in str(cim.summary(model))


# errors


def test_a_head_that_does_not_fit() -> None:
    with pytest.raises(
        cim.CapacityError, match=r"layer model\.layers\.0\.self_attn: heads of size 16 do not fit the 8"
    ):
        cim.convert_(llama(), chip(array=8, window=64))
    model = llama()
    with pytest.raises(cim.CapacityError):
        cim.convert_(model, chip(array=8, window=64))
    assert model.config._attn_implementation == "sdpa"
    assert not attention_layers(model)


def test_a_window_that_does_not_fit() -> None:
    with pytest.raises(
        cim.ChipError, match=r"window = 2000 does not fit: 16 sub-tiles of 64 columns hold 1024.*tile = 32"
    ):
        chip(window=2000)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: nn.TransformerEncoderLayer(4, 1), "does not follow transformers' attention interface"),
        (lambda: nn.Sequential(nn.Linear(4, 4)), "Sequential has no attention .* has no crossbar for its layers"),
        (
            lambda: transformers.BertModel(
                transformers.BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
            ),
            "looks ahead or across",
        ),
    ],
)
def test_attention_that_cannot_be_replaced(make: Any, says: str) -> None:
    with pytest.raises(cim.DataError, match=says):
        cim.convert_(make(), chip(window=64))


def test_a_model_without_attention_runs_its_layers() -> None:
    whole = cim.load_chip("pcm-256-gain-cell")
    model, x = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)), torch.randn(32, 8)
    with torch.no_grad():
        digital = model(x)
        for one, said in ((whole, "; no attention was found to put on the chip"), (cim.load_chip("pcm-256"), "")):
            cim.convert_(model, one)
            with cim.calibrate(model):
                model(x)
            cim.program_(model, seed=0)
            analog = model(x)
            assert 0 < (analog - digital).norm() / digital.norm() < 0.3
            assert cim.summary(model).rows[-1]["why"] == f"computed exactly in the model's own precision{said}"
            cim.restore_(model)
        assert torch.equal(model(x), digital)


def test_softmax_elsewhere_is_refused() -> None:
    with pytest.raises(cim.ChipError, match="runs dynamic_matmul and softmax in one go"):
        chip().replace({"policy": {"dynamic_matmul": "attention"}})


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"cell__multiplier__coefficients": [[1.0]] * 4}, r"rows of \[1, 1, 1, 1\]; give 4, 3, 2 and 1"),
        ({"count": {"tile": 16}}, "count needs the levels"),
        ({"pulses__output_levels": 31}, "output_levels = 31 is not allowed"),
        ({"cell__multiplier": {"kind": "table", "voltage": [0, 0], "current": [0, 1]}}, "must rise"),
        (
            {"cell__multiplier": {"kind": "table", "voltage": [0, 1], "current": [0, 1]}, "cell__levels": None},
            "a table multiplier with leakage needs levels",
        ),
        ({"components__dac__energy": {"read": 1.0}}, "'read' is not an action of this unit"),
    ],
)
def test_descriptions_that_make_no_sense(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(cim.ChipError, match=says):
        chip(**changes)


def test_masks_and_caches_that_columns_cannot_follow() -> None:
    model = cim.convert_(llama(), chip(window=64))
    ids = tokens(1, 8)
    with pytest.raises(cim.DataError, match="cannot be applied by columns of memory"):
        model(ids, attention_mask=torch.zeros(1, 1, 8, 8))
    with pytest.raises(cim.DataError, match="packed sequences"):
        model(ids, position_ids=torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3]]), use_cache=False)
    with pytest.raises(cim.DataError, match="StaticCache cannot hold the columns"):
        model.generate(ids, max_new_tokens=2, cache_implementation="static")
    with pytest.raises(cim.StateError, match="has no gain-cell attention"):
        cim.nn.GainCellCache(gpt2())


def test_converting_twice() -> None:
    model = cim.convert_(llama(), chip(window=64))
    with pytest.raises(cim.StateError, match="converted already"):
        cim.convert_(model, chip(window=64))
