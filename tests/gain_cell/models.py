"""Small models and chips for the tests of gain-cell attention."""

from typing import Any

import torch
import transformers

import cimphony as cim
from cimphony.chip import Chip, GainCellAttentionUnit


def chip(**changes: Any) -> Chip:
    """The CMOS chip with changes to its attention unit; a double underscore stands for a dot."""
    paths = {f"units.attention.{name.replace('__', '.')}": value for name, value in changes.items()}
    return cim.load_chip("gain-cell-cmos").replace(paths)


def unit(**changes: Any) -> GainCellAttentionUnit:
    found = chip(**changes).units["attention"]
    assert isinstance(found, GainCellAttentionUnit)
    return found


def gpt2(positions: int = 512) -> Any:
    transformers.set_seed(0)
    config = transformers.GPT2Config(
        vocab_size=64, n_positions=positions, n_embd=32, n_head=2, n_layer=2, bos_token_id=None, eos_token_id=None,
        initializer_range=0.2,
    )  # fmt: skip
    return transformers.GPT2LMHeadModel(config).double().eval()


def llama(key_heads: int = 2) -> Any:
    """Grouped queries and rotary positions."""
    transformers.set_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=64, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=key_heads,
        intermediate_size=48, initializer_range=0.2, pad_token_id=0, bos_token_id=None,
        eos_token_id=None,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).double().eval()


def tokens(batch: int, length: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(1, 64, (batch, length), generator=torch.Generator().manual_seed(seed))


def one_by_one(model: Any, ids: torch.Tensor, **named: Any) -> torch.Tensor:
    """Logits of a text fed token by token into rings of columns."""
    cache = cim.nn.GainCellCache(model)
    with torch.no_grad():
        parts = [model(ids[:, at : at + 1], past_key_values=cache, **named).logits for at in range(ids.shape[1])]
    return torch.cat(parts, dim=1)
