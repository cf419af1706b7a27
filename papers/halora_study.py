"""HaLoRA's ablation: a model with noisy base weights adapted to another task by LoRA, with noise, regulariser, both.

    python papers/halora_study.py shakespeare --data tinyshakespeare.txt.gz --seed 0
    python papers/halora_study.py sst2 --model ENCODER_FOLDER --data GLUE_FOLDER

shakespeare: the embedded GPT, which knows the Python manual, learns Shakespeare; perplexity per byte.
sst2: a sentence encoder, which never saw sentiment, learns SST-2; accuracy on a part of the dev set.
Base weights are noisy (relative to the largest weight of each matrix), nothing is quantised, adapters are exact.
"""

import argparse
import gzip
from pathlib import Path
from typing import Any

import peft
import torch
from torch import nn

import cimphony as cim
from cimphony.evaluate.glue import batches, load_glue, score
from cimphony.methods import halora
from cimphony.nn.noise_scales import SCALES, WeightNoise, with_noise

WEIGHTS_ALONE = {"units.rram.encoding.bits": None, "units.rram.input.bits": None, "units.rram.adc": None}
BASE = cim.load_chip("hybrid-rram-sram").replace(WEIGHTS_ALONE)
LEVELS = {"shakespeare": (0.05, 0.1, 0.15, 0.2), "sst2": (0.0025, 0.005, 0.0075, 0.01)}
TRAINED_AT = {"shakespeare": 0.1, "sst2": 0.005}
# the demo's five layers have equal shapes: attention 5 parts of 15, mlp 10; each of these stores 30 parts more
PLACEMENTS = {
    "everything, 3 copies": {"*": 3},
    "shallow (layers 0, 1), 6 copies": {"*.h.0.*": 6, "*.h.1.*": 6},
    "middle (layer 2), 11 copies": {"*.h.2.*": 11},
    "deep (layers 3, 4), 6 copies": {"*.h.3.*": 6, "*.h.4.*": 6},
    "attention, 7 copies": {"*.attn.*": 7},
    "mlp, 4 copies": {"*.mlp.*": 4},
}
REDUNDANT_AT = 0.15


def chip(sigma: float) -> cim.Chip:
    return with_noise(BASE, WeightNoise(sigma, "tensor_max")) if sigma else BASE.without("programming")


def lora(model: nn.Module, seed: int, **options: Any) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return peft.get_peft_model(model, peft.LoraConfig(r=4, lora_alpha=8, **options))


def shakespeare(asked: argparse.Namespace) -> dict[str, Any]:
    text = torch.tensor(list(gzip.decompress(Path(asked.data).read_bytes())))
    train, test = text[: len(text) * 9 // 10], text[len(text) * 9 // 10 :][:8193]

    def make() -> nn.Module:
        targets = ["c_attn", "c_proj", "c_fc"]
        return lora(cim.load_model("demo")[0], asked.seed, target_modules=targets, fan_in_fan_out=True)

    def batch(step: int) -> dict[str, torch.Tensor]:
        chosen = torch.Generator().manual_seed(10_000 * asked.seed + step)
        starts = torch.randint(0, len(train) - 129, (8,), generator=chosen)
        ids = torch.stack([train[start : start + 128] for start in starts.tolist()])
        return {"input_ids": ids, "labels": ids}

    return {"make": make, "batches": batch, "steps": asked.steps or 250, "lr": 3e-3,
            "metric": lambda model: cim.perplexity(model, test, window=256)}  # fmt: skip


def sst2(asked: argparse.Namespace) -> dict[str, Any]:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(asked.model)
    made = batches(load_glue(asked.data, "SST-2", "train").head(12_000), tokenizer, 32)
    dev = batches(load_glue(asked.data, "SST-2", "dev"), tokenizer, 32)[::3]
    order = torch.randperm(len(made), generator=torch.Generator().manual_seed(asked.seed)).tolist()

    def make() -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(asked.seed)
            model = AutoModelForSequenceClassification.from_pretrained(asked.model, num_labels=2, dtype=torch.float32)
        targets = ["query", "key", "value", "dense"]
        return lora(model, asked.seed, target_modules=targets, exclude_modules=[".*pooler.*"],
                    task_type="SEQ_CLS")  # fmt: skip

    def batch(step: int) -> dict[str, torch.Tensor]:
        inputs, labels = made[order[step % len(made)]]
        return {**inputs, "labels": labels}

    return {"make": make, "batches": batch, "steps": asked.steps or 250, "lr": 1e-3,
            "metric": lambda model: score(model, "SST-2", dev)}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=LEVELS)
    parser.add_argument("--data", required=True)
    parser.add_argument("--model")
    parser.add_argument("--seed", type=int, default=0, help="of training")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--chips", type=int, default=10)
    parser.add_argument("--mu", type=float, default=1e-3)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    setup = {"shakespeare": shakespeare, "sst2": sst2}[asked.task](asked)
    sigma, model = TRAINED_AT[asked.task], setup["make"]()
    bases = [m.get_base_layer().weight for m in model.modules() if hasattr(m, "get_base_layer")]
    matrices = [one if asked.task == "shakespeare" else one.T for one in bases]  # [row, column]
    also = {scale: WeightNoise(sigma, "tensor_max").to(scale, matrices).sigma for scale in SCALES}
    settings = {"task": asked.task, "sigma": sigma, "scale": "tensor_max", "same_noise_in_other_scales": also,
                "rank": 4, "alpha": 8, "digital_before": setup["metric"](model)}  # fmt: skip
    common: dict[str, Any] = {
        **setup, "chip": chip(sigma), "mu": asked.mu, "seed": asked.seed, "include": ["*base_layer"],
        "settings": settings,
        "record_path": asked.out or Path("papers/results") / f"halora-{asked.task}-{asked.seed}.json",
    }  # fmt: skip
    seeds = range(asked.chips)
    record = halora.ablation(
        levels={f"{one:g}": chip(one) for one in (0.0, *LEVELS[asked.task])}, seeds=seeds, **common
    )
    if asked.task == "shakespeare":  # the same adapters: the record goes on
        placed = {name: chip(REDUNDANT_AT).replace({"redundancy": one}) for name, one in PLACEMENTS.items()}
        record = halora.ablation(levels=placed, seeds=seeds[:5], variants=["LoRA", "HaLoRA"], **common)
    for row in record.results["rows"]:
        numbers = "".join(f"{row[key] or 0.0:10.4f}" for key in ("mean", "sd", "min", "max"))
        print(f"{row['variant']:12}{row['level']:>32}{numbers}")


if __name__ == "__main__":
    main()
