"""A PEFT script made hardware-aware in two lines, marked 1 and 2: pretrained weights in noisy RRAM, adapters in SRAM.

The demo model, which knows Python's manual, learns to write sums. Every training step sees another chip.

    python examples/peft_halora.py
"""

import random

import torch
from peft import LoraConfig, get_peft_model
from transformers import Trainer, TrainingArguments

import cimphony as cim
from cimphony.methods.halora import HaloraCallback

STEPS, WIDTH = 20, 96


def sums(count: int, seed: int) -> torch.Tensor:
    """Text such as "27 + 5 = 32;" as bytes [count, WIDTH]."""
    draw = random.Random(seed)
    pairs = [(draw.randrange(50), draw.randrange(50)) for _ in range(count * WIDTH // 8)]
    text = "".join(f"{a} + {b} = {a + b}; " for a, b in pairs).encode()
    return torch.tensor(list(text[: count * WIDTH])).view(count, WIDTH)


def main() -> None:
    torch.manual_seed(0)
    model, _ = cim.load_model("demo")
    adapter = LoraConfig(r=4, target_modules=["c_attn", "c_proj", "c_fc"], fan_in_fan_out=True)
    model = get_peft_model(model, adapter)
    train, test = sums(4 * STEPS, seed=0), sums(12, seed=1).flatten()
    chip = cim.load_chip("hybrid-rram-sram").replace({"units.rram.cell.device": {"kind": "gaussian", "additive": 0.05}})

    cim.program_(cim.convert_(model, chip), seed=0)  # 1
    before = cim.perplexity(model, test, window=WIDTH)
    trainer = Trainer(
        model,
        args=TrainingArguments(
            output_dir="runs/peft_halora", max_steps=STEPS, per_device_train_batch_size=4, learning_rate=5e-3,
            save_strategy="no", logging_strategy="no", report_to=[], disable_tqdm=True, use_cpu=True,
        ),
        train_dataset=[{"input_ids": row, "labels": row} for row in train],  # type: ignore[arg-type]
        callbacks=[HaloraCallback(mu=1e-4)],  # 2
    )  # fmt: skip
    trainer.train()

    model.eval()
    print(f"chip 0 before training: {before:.2f} perplexity per byte")
    for seed in range(3):
        if seed:
            cim.program_(model, seed=seed)
        print(f"chip {seed} with the adapter: {cim.perplexity(model, test, window=WIDTH):.2f}")
    cost = cim.estimate(cim.trace(model, prompt=WIDTH), chip)
    parts = {row["component"]: row["energy"] for row in cost.by("component")}
    sram = sum(energy for name, energy in parts.items() if name.startswith("sram."))
    print(f"adapters take {sram / cost.energy:.1%} of {cost.energy * 1e6:.1f} uJ a text")
    try:
        model.merge_adapter()
    except cim.CimphonyError as error:
        print(error)


if __name__ == "__main__":
    main()
