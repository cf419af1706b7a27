"""HaLoRA (Wu et al., arXiv 2502.19747): what its abstract and second-hand notes state, and what can be said here.

Its scale of sigma, mu, rank, adapted layers, energies and tables are not public. Costs are those of the chip
hybrid-rram-sram, whose prices are ours; accuracies under noise come from our own study on a model of a megabyte,
papers/halora_study.py, whose records are read where there is a checkout.
"""

from functools import cache, partial
from math import exp, fsum, log
from pathlib import Path
from typing import Any

import torch

from cimphony.chip import Chip, load_chip
from cimphony.cost import estimate
from cimphony.nn.trace import trace
from cimphony.papers.claims import Claim, claims_record
from cimphony.record import Record, read_record
from cimphony.workload import Operation, Workload

CHIP, GPU, MODEL = "hybrid-rram-sram", "gpu-a100", "llama-3.2-1b"
TARGETS, RANK = ("q_proj", "k_proj", "v_proj", "up_proj", "down_proj"), 4  # inferred: the first author's other work
VARIANTS = ("LoRA", "noise", "regulariser", "HaLoRA")
TRAINED_AT = "0.1"  # of the study, relative to the largest weight of each matrix
_RECORDS = Path(__file__).parents[2] / "papers" / "results"  # of a checkout; an installed package has none


def record() -> Record:
    """All claims measured; what moves the energy; the study's figures."""
    found = claims_record(
        "HaLoRA (arXiv 2502.19747)", claims(), _figures(), chip=load_chip(CHIP).model_dump(mode="json"),
        settings={"paper": "halora", "chip": CHIP},
        assumptions=[
            *load_chip(CHIP).notes,
            f"adapters of rank {RANK} beside {', '.join(TARGETS)}: the choice that comes closest to the stated share",
            "energy: products with stored weights and adapters alone on both sides; attention, norms and memory of "
            "activations are left out; a prompt of 128 tokens and 128 new ones unless said",
            "study: noise relative to the largest weight of each matrix (tensor_max), weights not quantised",
        ],
    )  # fmt: skip
    found.results["sensitivity"] = energies()
    return found


# cost


def with_adapters(work: Workload, targets: tuple[str, ...] = TARGETS, rank: int = RANK) -> Workload:
    """A workload with low-rank adapters beside the layers of these names, as PEFT's LoRA adds them; products alone."""
    operations: list[Operation] = []
    for one in work.operations:
        operations.append(one)
        if one.kind == "static_matmul" and one.layer.rsplit(".", 1)[-1] in targets:
            for side, inputs, outputs in (("A", one.k, rank), ("B", rank, one.n)):
                named = {"layer": f"{one.layer}.lora_{side}.default", "kind": "adapter", "k": inputs, "n": outputs}
                operations.append(one.model_copy(update=named))
    return work.model_copy(update={"operations": operations})


@cache
def _request(prompt: int, new_tokens: int, rank: int = RANK) -> Workload:
    work = trace(MODEL, prompt=prompt, new_tokens=new_tokens)
    kept = [one for one in work.operations if one.kind == "static_matmul"]
    return with_adapters(work.model_copy(update={"operations": kept}), rank=rank)


def adapter_share() -> float:
    """Weights of the adapters over the parameters of the model [%]."""
    work = _request(128, 0)
    return 100 * sum(one.weights for one in work.select("adapter")) / work.parameters


def energy_share(chip: Chip, prompt: int = 128, new_tokens: int = 128, rank: int = RANK, texts: int = 1) -> float:
    """Energy of a request over that of an A100, which serves some texts at once [%]."""
    work = _request(prompt, new_tokens, rank)
    batch = [one.model_copy(update={"m": one.m * texts}) for one in work.operations]
    gpu = estimate(work.model_copy(update={"operations": batch}), load_chip(GPU)).energy / texts
    return 100 * estimate(work, chip).energy / gpu


def energies() -> list[dict[str, Any]]:
    """The share of energy with one assumption changed."""
    chip = load_chip(CHIP)
    cell = chip.units["rram"].components["cell"].energy["cell"]
    softer = chip.replace({"units.rram.components.cell.energy.cell": cell / 20})
    together = chip.replace({"policy": {kind: unit for kind, unit in chip.policy.items() if kind != "adapter"}})
    cases: dict[str, float] = {
        "as described": energy_share(chip),
        "prompt alone": energy_share(chip, 128, 0),
        "new tokens alone": energy_share(chip, 1, 128),
        "the GPU serves 16 texts at once": energy_share(chip, texts=16),
        "cells of 120 kOhm instead of 6": energy_share(softer),
        "rank 64": energy_share(chip, rank=64),
        "adapters in RRAM too": energy_share(together),
        "everything in RRAM stored twice": energy_share(chip.replace({"redundancy": {"*": 2}})),
    }
    return [{"assumption": name, "energy, % of an A100": share} for name, share in cases.items()]


# the bound


def bound_ratio(draws: int = 50) -> float:
    """How far one step's product B A goes astray under a wrong gradient, over the bound; the largest of some draws."""
    generator, found = torch.Generator().manual_seed(0), 0.0
    for _ in range(draws):
        a, b, error = (
            torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((4, 24), (32, 4), (32, 24))
        )
        gap = torch.linalg.matrix_norm(b @ b.T @ error + error @ a.T @ a, ord=2)
        bracket = torch.linalg.matrix_norm(a @ a.T, ord=2) + torch.linalg.matrix_norm(b.T @ b, ord=2)
        found = max(found, float(gap / (bracket * torch.linalg.matrix_norm(error, ord=2))))
    return found


# the study


def studies(folder: Path | None = None) -> list[Record]:
    """Records of our study, one a training seed."""
    return [read_record(path) for path in sorted((folder or _RECORDS).glob("halora-shakespeare-*.json"))]


def ratio(found: list[Record], level: str, one: str, other: str, column: str = "mean") -> float | None:
    """Perplexity, or its spread over chips, of one variant over another's: geometric mean over training seeds."""
    logs: list[float] = []
    for study in found:
        rows = {(row["variant"], row["level"]): row[column] for row in study.results["rows"]}
        if rows.get((one, level)) and rows.get((other, level)):
            logs.append(log(rows[one, level] / rows[other, level]))
    return exp(fsum(logs) / len(logs)) if logs else None


def claims() -> list[Claim]:
    """The claims."""
    found = studies()
    seeds = f"{len(found)} training seeds" if len(found) > 1 else "one training seed"
    where = f"our study, embedded GPT to Shakespeare, trained at sigma {TRAINED_AT}, {seeds}: perplexity"
    unknown = "needs Llama 3.2 1B, its eight reasoning tasks and settings that are not public"

    def trend(name: str, statement: str, note: str, of: tuple[Any, ...], tolerance: float) -> Claim:
        value = ratio(found, *of)
        return Claim(name, "abstract", statement, 1.0, "x", "not derivable" if value is None else "conditional",
                     None if value is None else lambda: value, f"{where}{note}", "at most", tolerance)  # fmt: skip

    return [
        Claim("bound", "method", "mu's bracket bounds how far noise pulls a step of B A off its path", 1.0,
              "x the bound", "derived", bound_ratio, "first order in the rate, spectral norms", "at most", 0.0),
        Claim("adapter-share", "abstract", "adapters hold 0.15 % of the parameters of Llama 3.2 1B", 0.15, "%",
              "conditional", adapter_share, f"rank {RANK} and the adapted layers are inferred"),
        Claim("energy", "abstract", "the hybrid takes about 3 % of the energy of an A100", 3.0, "%", "conditional",
              partial(energy_share, load_chip(CHIP)),
              "arrays and prices are ours; from below 1 % for new tokens to most of the GPU's energy for a prompt: the "
              "number says little without its workload"),
        Claim("score", "second-hand", "average score at sigma = 0.02", 63.1, "points", "not derivable", None, unknown),
        Claim("gain", "second-hand", "22.7 points above LoRA there", 22.7, "points", "not derivable", None, unknown),
        trend("better-under-noise", "under noise HaLoRA is better than LoRA", " of HaLoRA over that of LoRA",
              (TRAINED_AT, "HaLoRA", "LoRA"), 0.0),
        trend("steadier", "and varies less from chip to chip", ", standard deviation over chips",
              (TRAINED_AT, "HaLoRA", "LoRA", "sd"), 0.0),
        trend("no-price", "and as good without noise", " on a chip without noise",
              ("0", "HaLoRA", "LoRA"), 0.05),
        trend("regulariser", "thanks to the added loss: better than training with noise alone",
              " of HaLoRA over that of noise alone, mu = 1e-3", (TRAINED_AT, "HaLoRA", "noise"), 0.0),
        Claim("size", "second-hand", "the larger model bears more noise", 1.0, "x", "not derivable", None,
              "one size of model was studied here"),
    ]  # fmt: skip


def _figures() -> list[dict[str, Any]]:
    """Perplexity against noise, and where copies help, means over training seeds."""
    means: dict[tuple[str, str], list[float]] = {}
    for study in studies():
        for row in study.results["rows"]:
            means.setdefault((row["variant"], row["level"]), []).append(row["mean"])
    values = {key: fsum(one) / len(one) for key, one in means.items()}
    found: list[dict[str, Any]] = []
    for title, across, numeric in (
        ("Perplexity under noise", "sigma, of the largest weight", True),
        ("LoRA and HaLoRA on chips with copies, equal extra cells, sigma 0.15", "stored more than once", False),
    ):
        levels = [one for one in dict.fromkeys(level for _, level in values) if one[0].isdigit() == numeric]
        drawn = [
            {"name": name, "x": [float(one) if numeric else one for one in levels if (name, one) in values],
             "y": [values[name, one] for one in levels if (name, one) in values]}
            for name in VARIANTS
        ]  # fmt: skip
        series = [one for one in drawn if one["x"]]
        if series:
            found.append({"figure": str(len(found) + 1), "title": title, "x": across, "y": "perplexity per byte",
                          "series": series, "published": []})  # fmt: skip
    return found
