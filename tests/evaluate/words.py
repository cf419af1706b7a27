"""A small Qwen3 of words with a thinking switch, as the tests of generation need it."""

from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

WORDS = ["<pad>", "<eos>", "[Q]", "[A]", "<think>", "</think>", *"abcdefgh", *"0123456789"]
SWITCH = "{% if not enable_thinking %} <think> </think>{% endif %}"
TEMPLATE = (
    "{% for m in messages %}{{ ('[Q] ' if m.role == 'user' else '[A] ') + m.content + ' ' }}{% endfor %}"
    "{% if add_generation_prompt %}[A]" + SWITCH + "{% endif %}"
)


def tokenizer(template: str | None = TEMPLATE) -> Any:
    words = Tokenizer(models.WordLevel({word: at for at, word in enumerate(WORDS)}, unk_token="<pad>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>")
    made.chat_template = template
    return made


def model(positions: int = 64) -> Qwen3ForCausalLM:
    state = torch.get_rng_state()
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=len(WORDS), hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8, max_position_embeddings=positions, tie_word_embeddings=False,
        pad_token_id=0, eos_token_id=1, bos_token_id=None, initializer_range=0.5,
    )  # fmt: skip
    made = Qwen3ForCausalLM(config).eval()
    torch.set_rng_state(state)
    return made
