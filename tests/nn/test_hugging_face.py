"""Converted Hugging Face models stay Hugging Face models: generate, Trainer, save, autocast, gradients."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import cimphony as cim

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}


def gpt2() -> Any:
    config = transformers.GPT2Config(
        vocab_size=64, n_positions=32, n_embd=32, n_head=2, n_layer=2, bos_token_id=None, eos_token_id=None
    )
    return transformers.GPT2LMHeadModel(config).eval()


def llama() -> Any:
    config = transformers.LlamaConfig(vocab_size=64, num_key_value_heads=1, pad_token_id=0, **SMALL)
    return transformers.LlamaForCausalLM(config).eval()


def bert() -> Any:
    config = transformers.BertConfig(vocab_size=64, max_position_embeddings=32, **SMALL)
    return transformers.BertForSequenceClassification(config).eval()


def vit() -> Any:
    return transformers.ViTForImageClassification(
        transformers.ViTConfig(image_size=8, patch_size=4, num_channels=1, **SMALL)
    ).eval()


MODELS = {"gpt2": gpt2, "llama": llama, "bert": bert, "vit": vit}
LAYERS = {"gpt2": 2 * 4 + 1, "llama": 2 * 7 + 1, "bert": 2 * 6 + 2, "vit": 2 * 6 + 1 + 1}


def batch(name: str) -> dict[str, torch.Tensor]:
    if name == "vit":
        return {"pixel_values": torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))}
    return {"input_ids": torch.arange(20).view(2, 10) % 64}


@pytest.mark.parametrize("name", MODELS)
def test_every_static_layer_is_converted_and_the_ideal_chip_changes_nothing(name: str) -> None:
    model = MODELS[name]()
    with torch.no_grad():
        digital = model(**batch(name)).logits
        cim.program_(cim.convert_(model, cim.load_chip("ideal")))
        assert len(cim.nn.analog_layers(model)) == LAYERS[name]
        torch.testing.assert_close(model(**batch(name)).logits, digital, rtol=1e-4, atol=1e-5)
        cim.restore_(model)
        assert torch.equal(model(**batch(name)).logits, digital)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_generate(name: str) -> None:
    model = cim.program_(cim.convert_(MODELS[name](), cim.load_chip("hyflexpim")), seed=0)
    prompt = batch(name)["input_ids"]
    settings = {"max_new_tokens": 4, "do_sample": False, "pad_token_id": 0}
    first = model.generate(prompt, attention_mask=torch.ones_like(prompt), **settings)
    assert first.shape == (2, 14)
    again = model.generate(prompt, attention_mask=torch.ones_like(prompt), use_cache=False, **settings)
    assert torch.equal(first, again)  # no read noise on this chip: the cache changes nothing


@pytest.mark.parametrize("name", MODELS)
def test_from_pretrained_reads_what_save_wrote(tmp_path: Path, name: str) -> None:
    model = MODELS[name]()
    cim.convert_(model, cim.load_chip("pcm-256"))
    with cim.calibrate(model), torch.no_grad():
        model(**batch(name))
    cim.age_(cim.program_(model, seed=5), seconds=100)
    cim.save(model, tmp_path)
    twin = type(model).from_pretrained(tmp_path).eval()
    cim.load_(twin, tmp_path)
    with torch.no_grad():
        assert torch.equal(model(**batch(name)).logits, twin(**batch(name)).logits)


def test_tied_head_stays_tied() -> None:
    model = gpt2()
    cim.program_(cim.convert_(model, cim.load_chip("hyflexpim")))
    assert model.lm_head.weight is model.transformer.wte.weight


def test_autocast_copy_and_dtype() -> None:
    model = cim.program_(cim.convert_(llama(), cim.load_chip("hyflexpim")), seed=0)
    inputs = batch("llama")
    with torch.no_grad():
        expected = model(**inputs).logits
        assert torch.equal(copy.deepcopy(model)(**inputs).logits, expected)
        with torch.autocast("cpu", torch.bfloat16):
            mixed = model(**inputs).logits
        assert mixed.dtype == torch.bfloat16
        torch.testing.assert_close(mixed.float(), expected, rtol=0.1, atol=0.05)
        half = copy.deepcopy(model).to(torch.bfloat16)  # the cells stay what they are
        assert half(**inputs).logits.dtype == torch.bfloat16
        assert torch.equal(model.to("cpu")(**inputs).logits, expected)


def test_trainer(tmp_path: Path) -> None:
    pytest.importorskip("accelerate", reason="the Trainer needs accelerate: pip install cimphony[train]")
    model = cim.program_(cim.convert_(gpt2(), cim.load_chip("hyflexpim"), exclude=["lm_head"]), seed=0)
    rows = [{"input_ids": row, "labels": row} for row in (torch.arange(64).view(8, 8) % 16)]
    settings = transformers.TrainingArguments(
        output_dir=str(tmp_path),
        max_steps=8,
        learning_rate=5e-3,
        report_to=[],
        disable_tqdm=True,
        save_strategy="no",
        logging_strategy="no",
        eval_strategy="steps",
        eval_steps=4,
        use_cpu=True,
        dataloader_pin_memory=False,
        per_device_train_batch_size=8,
    )
    with torch.no_grad():
        before = float(model(**{key: torch.stack([row[key] for row in rows]) for key in rows[0]}).loss)
    trainer = transformers.Trainer(model=model, args=settings, train_dataset=rows, eval_dataset=rows)
    assert trainer.train().training_loss < before
    assert [row["eval_loss"] < before for row in trainer.state.log_history if "eval_loss" in row] == [True, True]
    cim.program_(model.eval(), seed=0)
    with torch.no_grad():
        after = float(model(**{key: torch.stack([row[key] for row in rows]) for key in rows[0]}).loss)
    assert after < before


@pytest.mark.parametrize("name", MODELS)
def test_gradients_reach_every_parameter(name: str) -> None:
    model = cim.program_(cim.convert_(MODELS[name](), cim.load_chip("hyflexpim")))
    model(**batch(name)).logits.square().sum().backward()
    missing = [key for key, value in model.named_parameters() if value.grad is None]
    assert missing == []
