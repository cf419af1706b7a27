"""QuadINR (Zhou et al., arXiv 2508.14374): what its abstract and its summaries state, measured here.

The paper's network, data, word length and clock are not public, so sizes are those of our own pipelines with 16-bit
ports (`cimphony.hardware`), synthesised by yosys where it is installed.
"""

import logging
import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import torch

from cimphony.errors import DataError
from cimphony.hardware import ACTIVATIONS, synthesise
from cimphony.methods import quad_inr
from cimphony.papers.claims import Claim, claims_record, figure, load_claims
from cimphony.papers.pictures import load_picture
from cimphony.record import Record

OTHERS = ("taylor", "cordic", "sinc")  # that the quadratic activation is compared with
RATES = {"siren": 1.5e-3, "sine_matched": 2e-3, "quad": 1.5e-3}  # as tuned in papers/results/quad-inr-pictures.json
NAND2 = 0.49e-12  # m2, a two-input gate in a 28 nm library: 0.49 um2 is usual, 0.4 to 0.6 are found
_GATE = 4  # transistors of it
_LOG = logging.getLogger(__name__)


def record() -> Record:
    """All claims measured; without yosys those about size cannot be derived."""
    return claims_record(
        "QuadINR (arXiv 2508.14374)", claims(), figures(), settings={"paper": "quad-inr"},
        assumptions=[
            "pipelines of 16-bit ports with 14 bits of fraction, all with period 4, one result a cycle; no placement, "
            "no timing: logic cells as yosys maps them to UltraScale+, transistors as it estimates them",
            "reductions are the largest against a Taylor sine, a CORDIC sine and sinc, as the paper's 'up to'",
        ],
    )  # fmt: skip


def figures() -> list[dict[str, Any]]:
    """The activation beside the sine of its period, spectra of tangent kernels, and pictures; plain data."""
    x = torch.linspace(-4, 4, 161, dtype=torch.float64)
    curves = {"quad": quad_inr.quad(x).tolist(), "sin(pi x / 2)": torch.sin(math.pi / 2 * x).tolist()}
    decays: dict[str, list[float]] = {}
    for kind in ("siren", "sine_matched", "quad"):
        network = quad_inr.Inr(kind, 1, width=64, hidden=1)
        decays[kind] = quad_inr.tangent_spectrum(network, quad_inr.grid(96)).eigenvalues.log10().tolist()
    return [
        figure("1", "The activation", ("x", "value"), x.tolist(), curves),
        figure("2", "Tangent kernel", ("eigenvalue", "log10 of its share"), range(1, 97), decays),
        *fitted(),
    ]


def fitted(name: str = "camera", size: int = 64, steps: int = 200) -> list[dict[str, Any]]:
    """One figure: a picture and what networks make of it, grey values 0 to 255; none where scikit-image is absent."""
    try:
        picture = load_picture(name, size)
    except DataError:
        return []
    fits = list[quad_inr.Fit]()
    for kind, rate in RATES.items():
        _LOG.info("figure 3: %s learns %s", kind, name)
        fits.append(quad_inr.fit(quad_inr.Inr(kind, width=32), picture, steps=steps, rate=rate))
    shown = [("original", picture)] + [(f"{one.kind}, {one.psnr[steps]:.1f} dB", one.picture) for one in fits]
    pictures = [{"name": label, "rows": _grey(values)} for label, values in shown if values is not None]
    return [{"figure": "3", "title": f"{name}, {size} x {size}, after {steps} steps, one seed", "pictures": pictures}]


def _grey(picture: torch.Tensor) -> list[list[int]]:
    return (picture[..., 0] * 255).round().int().tolist()


def harmonic(n: int) -> float:
    """Coefficient of the n-th harmonic by numerical integration of the activation over a period."""
    x = (torch.arange(1 << 16, dtype=torch.float64) + 0.5) * 4 / (1 << 16) - 2
    return float((quad_inr.quad(x) * torch.sin(n * math.pi / 2 * x)).mean() * 2)


def rank_ratio(other: str, seeds: int = 3) -> float:
    """Effective rank of the tangent kernel, quad over another kind; 96 points on a line, two layers of 64."""
    grid = quad_inr.grid(96)

    def rank(kind: str) -> float:
        networks = (quad_inr.Inr(kind, 1, width=64, hidden=1, seed=seed) for seed in range(seeds))
        return float(np.mean([quad_inr.tangent_spectrum(one, grid).effective_rank for one in networks]))

    return rank("quad") / rank(other)


@cache
def count(name: str, target: str, cell: str) -> int:
    """Cells of a pipeline by yosys."""
    _LOG.info("yosys synthesises %s for %s", name, target)
    return synthesise(ACTIVATIONS[name][0](), target)[cell]


def reduction(target: str, cell: str, others: Sequence[str] = OTHERS) -> float:
    """The largest saving of quad over the others [%]."""
    return max(100 * (1 - count("quad", target, cell) / count(name, target, cell)) for name in others)


def latency_reduction(others: Sequence[str] = OTHERS) -> float:
    """The largest saving of clock cycles over the others [%]."""
    cycles = {name: ACTIVATIONS[name][0]().latency for name in ("quad", *others)}
    return max(100 * (1 - cycles["quad"] / cycles[name]) for name in others)


def area() -> float:
    """Transistors of quad as two-input gates of a 28 nm library [um2]."""
    return count("quad", "cmos", "transistors") / _GATE * NAND2 * 1e12


def claims() -> list[Claim]:
    """The claims of quad_inr.yaml."""
    return load_claims("quad_inr", (area, harmonic, latency_reduction, rank_ratio, reduction))
