"""Integer attention and FP16 special functions: selected by the chip, close to the model's own, taken away again."""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, LlamaConfig, LlamaForCausalLM

import cimphony as cim
from cimphony.nn import attention_layers
from cimphony.nn.digital_attention import DigitalAttention

PAPER = {"units.digital.attention": {"probability_bits": 12}, "units.sfu.bits": 16}
QUIET = {"units.analog.cell.device": {"kind": "ideal"}, "units.analog.adc": None, "units.analog.input.bits": 16,
         "units.analog.encoding.bits": 16}  # fmt: skip


Made = tuple[torch.nn.Module, dict[str, torch.Tensor]]


def bert() -> Made:
    torch.manual_seed(0)
    config = BertConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, vocab_size=50,
                        max_position_embeddings=32, initializer_range=0.3)  # fmt: skip
    mask = torch.ones(3, 12, dtype=torch.long)
    mask[1, 7:] = 0
    return BertForSequenceClassification(config).eval(), {
        "input_ids": torch.randint(50, (3, 12)),
        "attention_mask": mask,
    }


def llama() -> Made:
    torch.manual_seed(0)
    config = LlamaConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
                         intermediate_size=64, vocab_size=50, max_position_embeddings=32,
                         initializer_range=0.3)  # fmt: skip
    return LlamaForCausalLM(config).eval(), {"input_ids": torch.randint(50, (2, 12))}


@pytest.mark.parametrize("make", [bert, llama])
def test_close_to_the_models_own_and_gone_after_restore(make: Callable[[], Made]) -> None:
    model, batch = make()
    with torch.no_grad():
        expected = model(**batch).logits
        cim.convert_(model, cim.load_chip("hyflexpim").replace({**QUIET, **PAPER}))
        cim.program_(model, seed=0)
        assert all(isinstance(layer, DigitalAttention) for layer in attention_layers(model).values())
        assert len(attention_layers(model)) == 2
        found = model(**batch).logits
        copied = copy.deepcopy(model)(**batch).logits
        cim.restore_(model)
        assert torch.equal(model(**batch).logits, expected)
    assert 0 < (found - expected).abs().max() < 0.05 * expected.abs().max()
    assert torch.equal(copied, found)


def test_the_published_preset_leaves_attention_alone() -> None:
    model, batch = bert()
    cim.program_(cim.convert_(model, cim.load_chip("hyflexpim")), seed=0)
    assert not attention_layers(model)
    assert torch.isfinite(model(**batch).logits).all()


def test_more_bits_come_closer_and_integers_are_exact() -> None:
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, 4, 9, 16, generator=generator, dtype=torch.float64) for _ in range(3))
    expected = torch.nn.functional.scaled_dot_product_attention(query, key, value)

    def error(**changes: object) -> float:
        paths = {"units.digital.attention": {}} | {
            f"units.digital.{k.replace('__', '.')}": v for k, v in changes.items()
        }
        made = DigitalAttention(cim.load_chip("hyflexpim").replace(paths), "digital", "a", heads=4, size=16)
        return float((made(query, key, value, None, 0.25) - expected).abs().max())

    assert error(bits=16, attention__probability_bits=24) < 1e-3
    assert error(attention__probability_bits=12) < error(attention__probability_bits=4)
    assert error() < error(attention__range="tensor")
    whole = torch.randint(-127, 128, (1, 1, 300, 16), generator=generator).double()
    whole[..., 0] = 127  # every scale is 1
    made = DigitalAttention(cim.load_chip("hyflexpim").replace(PAPER), "digital", "a", heads=1, size=16)
    integers, scale = made._whole(whole)
    assert torch.equal(integers, whole)
    assert float(scale.max()) == 1


def test_padding_and_the_future_are_not_seen() -> None:
    model, batch = llama()
    cim.program_(cim.convert_(model, cim.load_chip("hyflexpim").replace(PAPER)), seed=0)
    ids = batch["input_ids"].clone()
    with torch.no_grad():
        before = model(input_ids=ids).logits[:, :6]
        ids[:, 6:] = 1
        assert torch.equal(model(input_ids=ids).logits[:, :6], before)


def test_the_twelve_bits_are_paid_for() -> None:
    work, chip = cim.trace("bert-large", prompt=128), cim.load_chip("hyflexpim")
    eight, twelve = (cim.estimate(work, one) for one in (chip, chip.replace(PAPER)))
    before, after = (
        next(row["energy"] for row in one.by("operation") if row["operation"] == "dynamic_matmul")
        for one in (eight, twelve)
    )
    assert after / before == pytest.approx((1 + 12 / 8) / 2, rel=0.01)  # half of the products are x V


def test_save_and_load(tmp_path: Path) -> None:
    model, batch = llama()
    digital = copy.deepcopy(model)
    cim.program_(cim.convert_(model, cim.load_chip("hyflexpim").replace(PAPER)), seed=3)
    cim.save(model, tmp_path)
    again = cim.load_(digital, tmp_path)
    with torch.no_grad():
        assert torch.equal(again(**batch).logits, model(**batch).logits)
