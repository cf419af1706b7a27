"""BWMA (Zhou et al., arXiv 2508.21524): what its abstract states, and what can be said about it here.

Its closed form, activation function, networks and accuracies are not public. What is measured live is what follows
from definitions; accuracies come from our own study, whose runs are kept here as data.
"""

from typing import Any

import torch

from cimphony.chip import load_chip
from cimphony.cost import estimate
from cimphony.methods.bwma_activations import SOFT, soft_staircase
from cimphony.methods.bwma_cost import cost_of_bits, knee
from cimphony.methods.bwma_weights import binarise
from cimphony.papers.claims import Claim, claims_record, figure, load_claims
from cimphony.random import NORMAL_BITS, Stream
from cimphony.record import Record
from cimphony.workload import Operation, Workload

CHIPS = ("cim-sram-22", "cim-rram-22", "cim-fefet-22")
# accuracy [%] of three training seeds by bits of the activations: papers/results/bwma-cifar10.json
STUDY: dict[int, tuple[float, ...]] = {
    1: (27.9, 30.2, 26.85),
    2: (44.55, 43.95, 45.4),
    3: (46.75, 47.4, 47.15),
    4: (48.8, 46.3, 48.35),
    6: (47.65, 46.2, 49.7),
    8: (46.45, 45.75, 47.65),
}


def record() -> Record:
    """All claims measured; figures: energy and latency of a network's binary layers by bits, on three chips."""
    return claims_record(
        "BWMA (arXiv 2508.21524)", claims(), _figures(), settings={"paper": "bwma"},
        assumptions=[*load_chip(CHIPS[0]).notes, "costs of VGG-small's binary layers on pictures of 32 x 32"],
    )  # fmt: skip


def vgg_small() -> Workload:
    """The binary layers of VGG-small on 32 x 32 pictures, each with its dummy column."""
    layers = [(32, 128, 128), (16, 128, 256), (16, 256, 256), (8, 256, 512), (8, 512, 512)]
    operations = [
        Operation(layer=f"conv{at}", kind="static_matmul", function="conv2d", m=side**2, k=9 * inputs, n=outputs + 1)
        for at, (side, inputs, outputs) in enumerate(layers, 1)
    ]
    return Workload(model="VGG-small, binary layers", operations=operations, prompt=32 * 32)


def error_ratio(mean: float = 0.0, count: int = 20_000) -> float:
    """Squared error of the shifted closed form over that of mean-|W|, for normal weights of a mean in deviations."""
    drawn = torch.from_numpy(Stream(0, "bwma", "weights").normal(0, count)).double() * 2.0**-NORMAL_BITS
    weights = (drawn + mean)[None]
    best, plain = (float(binarise(weights, rule).error(weights)) for rule in ("two_means", "mean"))
    return best / plain


def relative_cost(chip: str, field: str) -> float:
    """Energy or latency of 8-bit activations over that of 4-bit ones."""
    four, eight = (estimate(vgg_small(), load_chip(chip).replace({"units.analog.input.bits": bits})) for bits in (4, 8))
    return getattr(eight, field) / getattr(four, field)


def best_bits() -> float:
    """The fewest bits of our study within one standard error of the best accuracy."""
    return knee(STUDY)


def claims() -> list[Claim]:
    """The claims of bwma.yaml."""
    return load_claims("bwma", (best_bits, error_ratio))


def _figures() -> list[dict[str, Any]]:
    """Energy and latency by bits, the study's accuracies, and a staircase with its soft forms; plain data."""
    rows = cost_of_bits(vgg_small(), [load_chip(name) for name in CHIPS])
    bits = sorted({row["bits"] for row in rows})
    energy, latency = (
        {name: [row[field] * scale for row in rows if row["chip"] == name] for name in CHIPS}
        for field, scale in (("energy", 1e6), ("latency", 1e3))
    )
    runs = {f"seed {at}": [one[at] for one in STUDY.values()] for at in range(3)}
    x = torch.linspace(0, 1, 121, dtype=torch.float64)
    stairs = {form: soft_staircase(x, 3, form, 8.0).tolist() for form in SOFT}
    stairs["exact"] = (torch.floor(x * 3 + 0.5) / 3).tolist()
    across = "bits of activations"
    return [
        figure("1", "Energy of the binary layers", (across, "uJ"), bits, energy),
        figure("2", "Latency of the binary layers", (across, "ms"), bits, latency),
        figure("3", "Accuracy, CIFAR-10 at 16 x 16, small network", (across, "%"), list(STUDY), runs),
        figure("4", "A staircase of 2 bits, sharpness 8", ("input", "output"), x.tolist(), stairs),
    ]
