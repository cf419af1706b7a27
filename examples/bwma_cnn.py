"""A convolutional network with binary weights on 1-bit cells: how many bits do its activations need?

Trained on scikit-learn's digits, made binary, fine-tuned, put on an SRAM and an RRAM chip with 5-bit converters.

    python examples/bwma_cnn.py
"""

import copy

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

import cimphony as cim
from cimphony.methods import bwma, bwma_cost

CHIPS = ("cim-sram-22", "cim-rram-22", "cim-fefet-22")


def load_data() -> tuple[torch.Tensor, torch.Tensor]:
    """Images [n, 1, 8, 8] from 0 to 1 and their labels [n], in a fixed random order."""
    digits = load_digits()
    order = torch.randperm(len(digits.target), generator=torch.Generator().manual_seed(0))
    return torch.tensor(digits.images, dtype=torch.float32)[order, None] / 16, torch.tensor(digits.target)[order]


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU(),
        nn.Conv2d(12, 24, 3, stride=2, padding=1), nn.BatchNorm2d(24), nn.ReLU(),
        nn.Conv2d(24, 24, 3, padding=1), nn.BatchNorm2d(24), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 10),
    )  # fmt: skip


def train(model: nn.Module, images: torch.Tensor, labels: torch.Tensor, epochs: int, rate: float) -> nn.Module:
    optimiser, generator = torch.optim.Adam(model.parameters(), lr=rate), torch.Generator().manual_seed(0)
    for epoch in range(epochs):
        if any(isinstance(layer, bwma.BinaryLayer) for layer in model.modules()):
            bwma.anneal_(model, epoch / max(1, epochs - 1))
        for batch in torch.randperm(len(images), generator=generator).split(64):
            optimiser.zero_grad()
            F.cross_entropy(model.train()(images[batch]), labels[batch]).backward()
            optimiser.step()
    return model.eval()


@torch.no_grad()
def accuracy(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    return float((model(images).argmax(dim=1) == labels).double().mean())


def main() -> None:
    images, labels = load_data()
    train_set, test = (images[:1300], labels[:1300]), (images[1300:], labels[1300:])
    parent = train(network(), *train_set, epochs=5, rate=5e-3)
    print(f"float network: {accuracy(parent, *test):.3f}")
    print(
        f"{'bits':>4}{'digital':>9}"
        + "".join(f"{name:>14}" for name in CHIPS)
        + "   accuracy; on chips of 100 pictures"
    )
    for bits in (1, 2, 4):
        model = bwma.calibrate_(bwma.binarise_(copy.deepcopy(parent), bits=bits), images[:200])
        bwma.fold_batchnorm_(train(model, *train_set, epochs=3, rate=2e-3))
        found, few = [accuracy(model, *test)], (test[0][:100], test[1][:100])
        for name in CHIPS:
            chip = cim.load_chip(name).replace({"units.analog.input.bits": bits})
            found.append(accuracy(bwma.deploy_(model, chip, seed=0, sample=images[:32]), *few))
        print(f"{bits:4}{found[0]:9.3f}" + "".join(f"{one:14.3f}" for one in found[1:]))
    work = bwma_cost.array_workload(model, (1, 8, 8))
    print(f"\n{'chip':14}{'bits':>5}{'energy':>12}{'latency':>12}   of one picture, binary layers only")
    for row in bwma_cost.cost_of_bits(work, [cim.load_chip(name) for name in CHIPS], (1, 4, 8)):
        print(f"{row['chip']:14}{row['bits']:5}{row['energy'] * 1e9:9.2f} nJ{row['latency'] * 1e6:9.1f} us")


if __name__ == "__main__":
    main()
