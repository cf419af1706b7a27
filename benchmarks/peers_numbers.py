"""The same published devices here and in aihwkit: moments of cells, and the demo model's perplexity on both.

    python benchmarks/peers_numbers.py [-o benchmarks/results/peers_numbers.json]

Needs `pip install aihwkit`. Cells: mean and spread [uS] of what one read finds, 200,000 cells a row. Model: the demo
GPT on phase-change cells with perfect converters and compensated drift, ten chips an age; aihwkit draws its read noise
once a chip and age, Cimphony in every read.
"""

import argparse
import copy
import json
import math
import statistics
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from aihwkit.inference import PCMLikeNoiseModel, ReRamWan2022NoiseModel
from aihwkit.nn.conversion import convert_to_analog
from aihwkit.simulator.configs import TorchInferenceRPUConfig
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

import cimphony as cim
from cimphony.chip import Device, PcmDevice, RramDevice
from cimphony.devices import hold
from cimphony.record import versions

CELLS, TOP, CHIPS, TOKENS = 200_000, 127, 10, 2048
AGES = {"an hour": 3600.0, "a day": 86_400.0, "a year": 3.15e7}
DEVICES: dict[str, tuple[Device, Any, float, dict[str, float]]] = {
    "PCM": (PcmDevice(g_max=25e-6), PCMLikeNoiseModel(g_max=25.0), 25.0, AGES),
    "RRAM": (
        RramDevice(g_min=0.0, g_max=40e-6, read=0.0),  # there without read noise
        ReRamWan2022NoiseModel(g_max=40.0),
        40.0,
        {"a second": 1.0, "a day": 86_400.0, "two days": 172_800.0},
    ),
}


def here(device: Device, x: float, g_max: float, seconds: float) -> Tensor:
    """Conductances [uS] that one read finds."""
    targets = torch.full((CELLS,), x * TOP, dtype=torch.float64)
    state = hold(device, targets, TOP, seed=0, name="layer", start=0, seconds=seconds)
    noise = 0.0 if state.read_sd is None else state.read_sd * torch.randn(CELLS, dtype=torch.float64)
    return (state.levels + noise) * g_max / TOP


def there(model: Any, x: float, g_max: float, seconds: float) -> Tensor:
    target = torch.full((CELLS,), x * g_max, dtype=torch.float64)
    programmed = model.apply_programming_noise_to_conductance(target.clone())
    return model.apply_drift_noise_to_conductance(programmed, model.generate_drift_coefficients(target), seconds)


def cells() -> Iterator[dict[str, Any]]:
    for name, (device, model, g_max, ages) in DEVICES.items():
        for age, seconds in ages.items():
            for x in (0.1, 0.25, 0.5, 0.75, 1.0):
                ours, theirs = here(device, x, g_max, seconds), there(model, x, g_max, seconds)
                row = {"device": name, "age": age, "target": x * g_max}
                for side, found in (("cimphony", ours), ("aihwkit", theirs)):
                    row[side] = {"mean": round(float(found.mean()), 4), "sd": round(float(found.std()), 4)}
                sd = row["aihwkit"]["sd"]
                row["mean apart, in errors"] = round(
                    float(ours.mean() - theirs.mean()) / (sd * math.sqrt(2 / CELLS)), 1
                )
                row["sd apart"] = round(float(ours.std() / theirs.std()) - 1, 4)
                yield row


def linear(model: nn.Module) -> nn.Module:
    """GPT-2's Conv1D as nn.Linear, the kind that aihwkit converts."""
    for name, module in list(model.named_modules()):
        if isinstance(module, Conv1D):
            made = nn.Linear(*module.weight.shape)
            made.weight.data, made.bias.data = module.weight.data.T.contiguous(), module.bias.data
            model.set_submodule(name, made)
    return model


def on_aihwkit(model: nn.Module, text: Tensor) -> Iterator[tuple[str, float]]:
    config = TorchInferenceRPUConfig()
    config.forward.is_perfect = True
    config.mapping.weight_scaling_omega, config.mapping.weight_scaling_columnwise = 1.0, True
    config.mapping.max_input_size = config.mapping.max_output_size = 256
    for seed in range(CHIPS):
        torch.manual_seed(seed)
        made = convert_to_analog(copy.deepcopy(model), config, exclude_modules=["lm_head"]).eval()
        made.program_analog_weights()
        for age, seconds in AGES.items():
            made.drift_analog_weights(seconds)
            yield age, cim.perplexity(made, text)


def on_cimphony(model: nn.Module, text: Tensor) -> Iterator[tuple[str, float]]:
    chip = cim.load_chip("pcm-256").without("converters").replace({"units.analog.fidelity": "effective"})
    made = cim.convert_(copy.deepcopy(model), chip, exclude=["lm_head"])
    with cim.calibrate(made):
        made(input_ids=text[None, :256])
    for seed in range(CHIPS):
        cim.program_(made, seed=seed)
        for age, seconds in AGES.items():
            cim.age_(made, seconds=seconds)
            yield age, cim.perplexity(made, text)


def models() -> dict[str, Any]:
    model, tokenizer = cim.load_model("demo")
    text, model = cim.load_text("demo", tokenizer)[:TOKENS], linear(model).eval()
    found: dict[str, Any] = {"digital": round(cim.perplexity(model, text), 4)}
    for side, run in (("cimphony", on_cimphony), ("aihwkit", on_aihwkit)):
        values: dict[str, list[float]] = {}
        for age, value in run(model, text):
            values.setdefault(age, []).append(value)
            print(side, age, round(value, 4), flush=True)
        found[side] = {
            age: {"mean": round(statistics.fmean(ones), 4), "sd": round(statistics.stdev(ones), 4)}
            for age, ones in values.items()
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path(__file__).parent / "results" / "peers_numbers.json")
    out = parser.parse_args().output
    torch.manual_seed(0)
    rows = list(cells())
    for row in rows:
        print(row)
    settings = {"cells": CELLS, "chips": CHIPS, "tokens": TOKENS}
    made = {"settings": settings, "versions": versions() | {"aihwkit": version("aihwkit")},
            "cells": rows, "perplexity of the demo model": models()}  # fmt: skip
    out.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
