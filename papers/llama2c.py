"""A llama2.c checkpoint (version 0) and its tokenizer as a Hugging Face folder.

    python papers/llama2c.py stories260K.bin tok512.bin OUT_FOLDER

llama2.c rotates adjacent pairs of features, transformers the two halves of a head: rows of wq and wk are reordered.
"""

import struct
import sys
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, processors
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

BOS, EOS = 1, 2


def load_model(path: Path) -> LlamaForCausalLM:
    """The model of a checkpoint whose output matrix is the embedding's."""
    dim, hidden, layers, heads, key_heads, words, positions = struct.unpack("7i", path.read_bytes()[:28])
    values = torch.from_numpy(np.fromfile(path, dtype=np.float32, offset=28))
    taken = 0

    def take(*shape: int) -> Tensor:
        nonlocal taken
        count = int(np.prod(shape))
        taken += count
        return values[taken - count : taken].view(shape)

    size, narrow = dim // heads, key_heads * (dim // heads)
    state = {"model.embed_tokens.weight": take(words, dim)}
    parts = (
        ("input_layernorm", (dim,)), ("self_attn.q_proj", (dim, dim)), ("self_attn.k_proj", (narrow, dim)),
        ("self_attn.v_proj", (narrow, dim)), ("self_attn.o_proj", (dim, dim)), ("post_attention_layernorm", (dim,)),
        ("mlp.gate_proj", (hidden, dim)), ("mlp.down_proj", (dim, hidden)), ("mlp.up_proj", (hidden, dim)),
    )  # fmt: skip
    for name, shape in parts:
        for layer, weight in enumerate(take(layers, *shape)):
            if name.endswith(("q_proj", "k_proj")):
                weight = weight.view(-1, size // 2, 2, dim).transpose(1, 2).reshape(-1, dim)
            state[f"model.layers.{layer}.{name}.weight"] = weight
    state["model.norm.weight"] = take(dim)
    state["lm_head.weight"] = state["model.embed_tokens.weight"]
    config = LlamaConfig(
        hidden_size=dim, intermediate_size=hidden, num_hidden_layers=layers, num_attention_heads=heads,
        num_key_value_heads=key_heads, vocab_size=words, max_position_embeddings=positions, rms_norm_eps=1e-5,
        tie_word_embeddings=True, bos_token_id=BOS, eos_token_id=EOS,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    model.load_state_dict(state)
    return model.eval()


def load_tokenizer(path: Path) -> PreTrainedTokenizerFast:
    """The tokenizer: pieces with scores become pairs to merge, the best score first."""
    data, at, pieces, scores = path.read_bytes(), 4, [], []
    while at < len(data):
        score, length = struct.unpack_from("fi", data, at)
        pieces.append(data[at + 8 : at + 8 + length].decode("utf-8"))
        scores.append(score)
        at += 8 + length
    pieces[:3] = ["<unk>", "<s>", "</s>"]
    for byte in range(256):
        pieces[3 + byte] = f"<0x{byte:02X}>"
    known = {piece: index for index, piece in enumerate(pieces)}
    merges = [
        (piece[:cut], piece[cut:])
        for _, piece in sorted(zip(scores[259:], pieces[259:], strict=True), key=lambda one: -one[0])
        for cut in range(1, len(piece))
        if piece[:cut] in known and piece[cut:] in known
    ]
    made = Tokenizer(models.BPE(known, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    made.normalizer = normalizers.Prepend(" ")
    made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", BOS)])
    made.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def main() -> None:
    checkpoint, tokens, out = map(Path, sys.argv[1:])
    model, tokenizer = load_model(checkpoint), load_tokenizer(tokens)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    sample = tokenizer("Once upon a time", return_tensors="pt")
    print(tokenizer.decode(model.generate(**sample, max_new_tokens=40, do_sample=False)[0]))


if __name__ == "__main__":
    main()
