"""BWMA: accuracy by bits of the activations, weight rule and staircase, then on chips, and what the bits cost.

A float network is trained once a seed; every variant is fine-tuned from it with the same steps and learning rate.

    python papers/bwma_study.py                         # ten of scikit-image's pictures, 16 x 16 patches
    python papers/bwma_study.py --cifar TRAIN.npz TEST.npz   # JPEG streams: arrays jpeg, offset, label
"""

import argparse
import copy
import io
import json
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import cimphony as cim
from cimphony.methods import bwma, bwma_cost
from cimphony.methods.bwma_activations import FORMS
from cimphony.methods.bwma_weights import RULES
from cimphony.papers.pictures import patches
from cimphony.record import new_record, write_record

PICTURES = ("brick", "grass", "gravel", "camera", "astronaut", "coffee", "chelsea", "moon", "coins", "rocket")
CHIPS = ("cim-sram-22", "cim-rram-22", "cim-fefet-22")
BITS = (1, 2, 3, 4, 6, 8)
VARIANTS = (
    [{"bits": bits} for bits in BITS]
    + [{"rule": rule} for rule in RULES if rule != "two_means"]
    + [{"rule": "two_means", "grain": "layer"}, {"rule": "mean", "grain": "layer"}]
    + [{"bits": bits, "form": form} for bits in (2, 4) for form in FORMS if form != "tanh"]
)
DEFAULT = {"bits": 4, "rule": "two_means", "grain": "channel", "form": "tanh"}
SETTINGS = [DEFAULT | change for change in VARIANTS]
Data = tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cifar", nargs=2, metavar=("TRAIN", "TEST"))
    parser.add_argument("--train", type=int, default=6000)
    parser.add_argument("--test", type=int, default=2000)
    parser.add_argument("--float-epochs", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", default="papers/results/bwma-patches.json")
    return parser.parse_args()


def cifar(path: str, count: int) -> tuple[Tensor, Tensor]:
    """An even share of every class, averaged down to 16 x 16; values -2 to 2."""
    from PIL import Image

    with np.load(path) as file:
        jpeg, offset, label = file["jpeg"], file["offset"], file["label"]
    chosen = np.linspace(0, len(label) - 1, count).round().astype(int)
    images = [np.asarray(Image.open(io.BytesIO(jpeg[offset[i] : offset[i + 1]].tobytes()))) for i in chosen]
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 64 - 2
    return F.avg_pool2d(pixels, 2), torch.from_numpy(label[chosen].astype(np.int64))


def network(channels: int, classes: int) -> nn.Sequential:
    def block(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
        return [nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]

    layers = [*block(channels, 16, 1), *block(16, 32, 2), *block(32, 32, 1), *block(32, 48, 2), *block(48, 48, 1)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(48, classes))


def train(model: nn.Module, data: tuple[Tensor, Tensor], epochs: int, rate: float, seed: int) -> nn.Module:
    images, labels = data
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(model.parameters(), lr=rate)
    batches = -(-len(images) // 100)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs * batches)
    binary = any(isinstance(one, bwma.BinaryLayer) for one in model.modules())
    model.train()
    for epoch in range(epochs):
        if binary:
            bwma.anneal_(model, epoch / max(1, epochs - 1))
        for batch in torch.randperm(len(images), generator=generator).split(100):
            optimiser.zero_grad()
            F.cross_entropy(model(images[batch]), labels[batch]).backward()
            optimiser.step()
            schedule.step()
    return model.eval()


@torch.no_grad()
def accuracy(model: nn.Module, data: tuple[Tensor, Tensor]) -> float:
    images, labels = data
    found = torch.cat([model(part).argmax(dim=1) for part in images.split(250)])
    return float((found == labels).double().mean())


def on_chips(model: nn.Module, data: Data, bits: int) -> list[dict]:
    """Accuracy of a trained binary network on each chip, for the chip's converters and for lossless ones."""
    (images, _), test = data
    test, rows = (test[0][:500], test[1][:500]), []
    for name in CHIPS:
        for converters in (5, 8):
            changes = {"units.analog.input.bits": bits, "units.analog.adc.bits": converters}
            chip = cim.load_chip(name).replace(
                changes | ({"units.analog.adc.range": "level"} if converters == 8 else {})
            )
            found = [accuracy(bwma.deploy_(model, chip, seed=seed, sample=images[:64]), test) for seed in range(3)]
            rows.append({"chip": name, "adc_bits": converters, "digital": None, "accuracy": found})
    digital = accuracy(bwma.retract_(model), test)
    return [row | {"digital": digital} for row in rows]


def binary_network(parent: nn.Module, **change: object) -> nn.Module:
    return bwma.binarise_(copy.deepcopy(parent), **(DEFAULT | change))


def key(setting: dict) -> str:
    return " ".join(map(str, setting.values()))


def measure(data: Data, asked: argparse.Namespace, seed: int, found: dict, out: Path) -> None:
    """What one training seed still lacks; written after every variant, so that a stopped run goes on."""
    left = [one for one in SETTINGS if str(seed) not in found["variants"].get(key(one), {})]
    if not left:
        return
    torch.manual_seed(seed)
    parent = train(network(data[0][0].shape[1], 10), data[0], asked.float_epochs, 5e-3, seed)
    found["float"][str(seed)] = accuracy(parent, data[1])
    for setting in left:
        model = bwma.calibrate_(binary_network(parent, **setting), data[0][0][:200])
        train(model, data[0], asked.epochs, asked.rate, seed)
        if setting == DEFAULT:
            found["chips"] += [{"seed": seed} | one for one in on_chips(model, data, 4)]
        found["variants"].setdefault(key(setting), {})[str(seed)] = accuracy(model, data[1])
        out.with_suffix(".new").write_text(json.dumps(found))
        out.with_suffix(".new").replace(out)
        print(seed, key(setting), f"{found['variants'][key(setting)][str(seed)]:.4f}", flush=True)


def main() -> None:
    asked, began = options(), time.perf_counter()
    torch.set_num_threads(1)
    if asked.cifar:
        data = (cifar(asked.cifar[0], asked.train), cifar(asked.cifar[1], asked.test))
    else:
        taken, stride = patches(PICTURES, 16, asked.train // len(PICTURES), 0), max(1, asked.train // asked.test)
        data = ((taken[0] * 4 - 2, taken[1]), (taken[2][::stride] * 4 - 2, taken[3][::stride]))
    found, out = {"float": {}, "variants": {}, "chips": []}, Path(asked.out).with_suffix(".part.json")
    if out.exists():
        found = json.loads(out.read_text())
    for seed in range(asked.seeds):
        measure(data, asked, seed, found, out)
    rows = [{"variant": "float", "accuracy": list(found["float"].values())}]
    rows += [{"variant": one, "accuracy": list(found["variants"][key(one)].values())} for one in SETTINGS]
    for row in rows:
        row |= {"mean": statistics.mean(row["accuracy"]), "sd": statistics.stdev(row["accuracy"])}
    by_bits = {bits: list(found["variants"][key(DEFAULT | {"bits": bits})].values()) for bits in BITS}
    work = bwma_cost.array_workload(binary_network(network(data[0][0].shape[1], 10)), tuple(data[0][0].shape[1:]))
    costs = bwma_cost.cost_of_bits(work, [cim.load_chip(name) for name in CHIPS])
    results = {"rows": rows, "chips": found["chips"], "costs": costs, "knee": bwma_cost.knee(by_bits),
               "knee_rule": "fewest bits within one standard error of the best mean"}  # fmt: skip
    settings = {key: value for key, value in vars(asked).items() if key not in ("cifar", "out")}
    settings |= {"data": "CIFAR-10 (JPEG), 16 x 16" if asked.cifar else f"patches of {', '.join(PICTURES)}"}
    record = new_record("study", "BWMA: activation bits, weight rules, staircases", settings=settings, results=results,
                        duration=time.perf_counter() - began)  # fmt: skip
    print("knee:", results["knee"], "written:", write_record(record, asked.out))
    out.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
