"""BWMA (Zhou et al., arXiv 2508.21524): what its abstract states, and what can be said about it here.

Its closed form, activation function, networks and accuracies are not public. What is measured live is what follows
from definitions; accuracies come from our own study, whose runs are kept here as data.
"""

from functools import partial
from typing import Any

import torch

from cimphony.chip import load_chip
from cimphony.cost import estimate
from cimphony.methods.bwma_activations import SOFT, soft_staircase
from cimphony.methods.bwma_cost import cost_of_bits, knee
from cimphony.methods.bwma_weights import binarise
from cimphony.papers.claims import Claim, claims_record
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
    rows = cost_of_bits(vgg_small(), [load_chip(name) for name in CHIPS])
    return claims_record(
        "BWMA (arXiv 2508.21524)", claims(), settings={"paper": "bwma"}, figures=_figures(rows),
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


def claims() -> list[Claim]:
    """The claims."""
    unknown = (
        "networks, epochs, learning rates and baselines are unknown; our study is papers/results/bwma-cifar10.json"
    )
    return [
        Claim("knee", "abstract", "activations of 4 bits balance cost and accuracy best", 4.0, "bits", "conditional",
              lambda: float(knee(STUDY)),
              "the fewest bits within one standard error of the best accuracy, on our small network and CIFAR-10 at "
              "16 x 16; three seeds do not separate 3, 4, 6 and 8 bits; the rule ignores cost", tolerance=0.0),
        Claim("closed-form", "method", "the closed form is as close to the weights as sign times mean|W|, or closer",
              1.0, "x the squared error", "derived", error_ratio,
              "weights of mean 0: the shift gains next to nothing", "at most"),
        Claim("closed-form-mean", "method", "the same for weights whose mean is half their deviation", 1.0,
              "x the squared error", "derived", partial(error_ratio, 0.5), "", "at most"),
        Claim("cifar-low", "abstract", "CIFAR-10: at least 1.44 points better than existing methods", 1.44, "points",
              "not derivable", None, unknown),
        Claim("cifar-high", "abstract", "and up to 5.46", 5.46, "points", "not derivable", None, unknown),
        Claim("imagenet-low", "abstract", "ImageNet: at least 0.35 points better", 0.35, "points",
              "not derivable", None, "ImageNet is not available here"),
        Claim("imagenet-high", "abstract", "and up to 5.37", 5.37, "points", "not derivable", None,
              "ImageNet is not available here"),
    ]  # fmt: skip


def _figures(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Energy and latency by bits, the study's accuracies, and a staircase with its soft forms; plain data."""
    bits = sorted({row["bits"] for row in rows})
    by_chip = {name: [row for row in rows if row["chip"] == name] for name in CHIPS}
    costs = {
        field: [{"name": name, "x": bits, "y": [row[field] * scale for row in mine]} for name, mine in by_chip.items()]
        for field, scale in (("energy", 1e6), ("latency", 1e3))
    }
    runs = [{"name": f"seed {at}", "x": list(STUDY), "y": [one[at] for one in STUDY.values()]} for at in range(3)]
    x = torch.linspace(0, 1, 121, dtype=torch.float64)
    soft: dict[str, torch.Tensor] = {form: soft_staircase(x, 3, form, 8.0) for form in SOFT}
    stairs = soft | {"exact": torch.floor(x * 3 + 0.5) / 3}
    found = [
        ("Energy of the binary layers", "bits of activations", "uJ", costs["energy"]),
        ("Latency of the binary layers", "bits of activations", "ms", costs["latency"]),
        ("Accuracy, CIFAR-10 at 16 x 16, small network", "bits of activations", "%", runs),
        ("A staircase of 2 bits, sharpness 8", "input", "output",
         [{"name": name, "x": x.tolist(), "y": y.tolist()} for name, y in stairs.items()]),
    ]  # fmt: skip
    return [
        {"figure": str(at), "title": title, "x": across, "y": up, "series": series, "published": []}
        for at, (title, across, up, series) in enumerate(found, 1)
    ]
