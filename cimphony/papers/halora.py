"""HaLoRA (Wu et al., arXiv 2502.19747): what its abstract and second-hand notes state, and what can be said here.

Its scale of sigma, mu, rank, adapted layers, energies and tables are not public. Costs are those of the chip
hybrid-rram-sram, whose prices are ours; accuracies under noise come from our own study on a model of a megabyte,
papers/halora_study.py, whose records are read where there is a checkout.
"""

from functools import cache
from math import exp, fsum, log
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from cimphony.chip import Chip, load_chip
from cimphony.cost import estimate
from cimphony.errors import StateError
from cimphony.nn.trace import trace
from cimphony.papers.claims import RECORDS, Claim, claims_record, figure, load_claims
from cimphony.record import Record, read_record
from cimphony.workload import Operation, Workload

CHIP, GPU, MODEL = "hybrid-rram-sram", "gpu-a100", "llama-3.2-1b"
TARGETS, RANK = ("q_proj", "k_proj", "v_proj", "up_proj", "down_proj"), 4  # inferred: the first author's other work
VARIANTS = ("LoRA", "noise", "regulariser", "HaLoRA")


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
            f"study: {len(studies())} training seeds, noise relative to the largest weight of each matrix "
            "(tensor_max), weights not quantised",
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
    return [read_record(path) for path in sorted((folder or RECORDS).glob("halora-shakespeare-*.json"))]


def ratio(level: str, one: str, other: str, column: str = "mean") -> float:
    """Perplexity, or its spread over chips, of one variant over another's: geometric mean over training seeds.

    Raises StateError where no record at hand holds both.
    """
    logs: list[float] = []
    for study in studies():
        rows = {(row["variant"], row["level"]): row[column] for row in study.results["rows"]}
        if rows.get((one, level)) and rows.get((other, level)):
            logs.append(log(rows[one, level] / rows[other, level]))
    if not logs:
        raise StateError("needs the records of papers/halora_study.py, in a checkout")
    return exp(fsum(logs) / len(logs))


def claims() -> list[Claim]:
    """The claims of halora.yaml."""
    return load_claims("halora", (adapter_share, bound_ratio, energy_share, ratio), names={CHIP: load_chip(CHIP)})


def _figures() -> list[dict[str, Any]]:
    """Perplexity against noise, and where copies help, means over training seeds."""
    found: dict[tuple[str, str], list[float]] = {}
    for study in studies():
        for row in study.results["rows"]:
            found.setdefault((row["variant"], row["level"]), []).append(row["mean"])
    levels = list(dict.fromkeys(level for _, level in found))
    noises = [one for one in levels if one[0].isdigit()]
    copies = [one for one in levels if one not in noises]

    def lines(levels: list[str]) -> dict[str, list[float | None]]:
        means = {key: fmean(values) for key, values in found.items()}
        return {name: [means.get((name, one)) for one in levels] for name in VARIANTS}

    drawn = [
        figure("1", "Perplexity under noise", ("sigma, of the largest weight", "perplexity per byte"),
               [float(one) for one in noises], lines(noises)),
        figure("2", "LoRA and HaLoRA on chips with copies, equal extra cells, sigma 0.15",
               ("stored more than once", "perplexity per byte"), copies, lines(copies)),
    ]  # fmt: skip
    return [one for one in drawn if one["series"]]
