"""Your own Hugging Face model on a simulated chip: does it still work, and what does it cost?

The model here is a small Llama with random weights, saved to a folder as `save_pretrained` writes it. Put the path
of your own folder, or a hub name, in its place.

    python examples/own_llama.py
"""

import tempfile

import torch
from transformers import LlamaConfig, LlamaForCausalLM

import cimphony as cim

PROMPT, NEW_TOKENS = 32, 16


def save_a_model(folder: str) -> None:
    """Stands in for your own model."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=512,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        initializer_range=0.1,
        tie_word_embeddings=True,
        eos_token_id=None,
        bos_token_id=None,
    )
    LlamaForCausalLM(config).save_pretrained(folder)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        save_a_model(folder)
        model, _ = cim.load_model(folder)  # no tokenizer in this folder

    prompt = torch.randint(0, 512, (1, PROMPT), generator=torch.Generator().manual_seed(1))
    inputs = {"input_ids": prompt, "attention_mask": torch.ones_like(prompt)}
    with torch.no_grad():
        digital = model(**inputs).logits

    chip = cim.load_chip("hyflexpim")
    cim.convert_(model, chip, exclude=["lm_head"])
    with cim.calibrate(model):
        model(**inputs)
    print("chip   error of the logits   generated tokens")
    for seed in range(3):
        cim.program_(model, seed=seed)
        with torch.no_grad():
            error = (model(**inputs).logits - digital).norm() / digital.norm()
        written = model.generate(**inputs, max_new_tokens=NEW_TOKENS, do_sample=False)
        print(f"{seed:4}{error:18.1%}      {written[0, PROMPT:][:8].tolist()} ...")
    rows = cim.summary(model).rows
    digital_rows = [row["layer"] for row in rows if row["runs_on"] == "digital"]
    print(f"{len(rows) - len(digital_rows)} layers on crossbars; digital: {', '.join(digital_rows)}")
    cim.restore_(model)

    work = cim.trace(model, prompt=PROMPT, new_tokens=NEW_TOKENS, name="own llama")
    ours, gpu = cim.estimate(work, chip), cim.estimate(work, cim.load_chip("gpu-h100"))
    print(f"\nOne request of {PROMPT} + {NEW_TOKENS} tokens{ours.chip:>12}{gpu.chip:>12}   advantage")
    for row in ours.compare(gpu):
        unit = f"{row['quantity']} [{row['unit']}]"
        print(f"{unit:32}{row['this']:12.3g}{row['other']:12.3g}{row['advantage'] or 0:12.3g}")


if __name__ == "__main__":
    main()
