"""Models by name: built-in, folder, hub; the head that the configuration names; clear errors."""

import json
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    ViTConfig,
    ViTForImageClassification,
)
from transformers.utils import logging

from cimphony.errors import DataError
from cimphony.evaluate import load_config, load_model, load_text, model_names, perplexity, token_name
from cimphony.nn.architectures import resolve

SMALL = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}


@pytest.mark.parametrize(
    "model",
    [
        LlamaForCausalLM(LlamaConfig(vocab_size=9, **SMALL)),
        BertForSequenceClassification(BertConfig(vocab_size=9, num_labels=3, **SMALL)),
        ViTForImageClassification(ViTConfig(image_size=8, patch_size=4, **SMALL)),
    ],
    ids=lambda model: type(model).__name__,
)
def test_a_folder_gives_its_own_head(tmp_path, model):
    model.half().save_pretrained(tmp_path)
    shown = logging.is_progress_bar_enabled()
    loaded, tokenizer = load_model(tmp_path)
    assert type(loaded) is type(model)
    assert tokenizer is None
    assert not loaded.training
    assert next(loaded.parameters()).dtype == torch.float32
    assert all(torch.equal(value, model.state_dict()[name].float()) for name, value in loaded.state_dict().items())
    assert logging.is_progress_bar_enabled() == shown


def test_the_tokenizer_comes_along(tmp_path):
    LlamaForCausalLM(LlamaConfig(vocab_size=9, **SMALL)).save_pretrained(tmp_path)
    tokenizer = Tokenizer(models.WordLevel({"a": 0, "b": 1, "?": 2}, unk_token="?"))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(tmp_path)
    assert load_text(["b"], load_model(str(tmp_path))[1]).tolist() == [1]


def test_built_in_shapes_have_no_weights():
    assert {"bert-large", "gpt2", "llama-3-70b", "vit-base"} <= set(model_names())
    assert load_config("llama-3-70b").num_hidden_layers == 80
    with pytest.raises(DataError, match="bert-large comes as a shape only: use it with `cimphony cost`"):
        load_model("bert-large")


def test_what_is_no_model(tmp_path):
    with pytest.raises(DataError, match=r"has no config\.json"):
        load_model(tmp_path)
    with pytest.raises(DataError, match="does not exist"):
        load_model(tmp_path / "none")
    with pytest.raises(DataError, match="cannot be loaded"):
        load_model("some-org/no-such-model")
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "llama", "architectures": ["LlamaForCausalLM"]} | SMALL)
    )
    with pytest.raises(DataError, match="give its folder"):
        load_config(tmp_path / "config.json")
    with pytest.raises(DataError, match="cannot be loaded"):
        load_model(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(DataError, match="cannot be loaded"):
        load_model(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(DataError, match="cannot be loaded"):
        load_config(tmp_path)


def test_the_embedded_model():
    model, tokenizer = load_model("demo")
    tokens = load_text("demo", tokenizer)
    assert token_name(tokenizer) == "byte"
    assert torch.equal(tokens, load_text("demo"))  # a token is a byte
    training = json.loads((Path(resolve("demo")) / "training.json").read_text())
    assert len(tokens) == training["validation_bytes"]
    # the training record moves no window: its last one is shorter
    assert perplexity(model, tokens, batch=16) == pytest.approx(training["validation_perplexity_per_byte"], rel=1e-4)
