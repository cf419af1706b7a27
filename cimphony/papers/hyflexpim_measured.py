"""HyFlexPIM's accuracy claims (sections 4 and 6.1, 6.2) against the records of our own experiments.

The experiments are those of `hyflexpim_accuracy`, run by papers/hyflexpim_accuracy.py on other models than the
paper's: a claim can hold as a trend or fail, never more. Every claim names the device noise it is held to, because
nothing else decides as much.
"""

import math
import statistics
from functools import cache
from pathlib import Path
from typing import Any

from cimphony.chip import load_chip
from cimphony.cost import estimate
from cimphony.cost.lifetime import one_copy
from cimphony.errors import DataError
from cimphony.mapping import place
from cimphony.papers.claims import RECORDS, Claim, claims_record, figure, load_claims
from cimphony.papers.transformers import Shape, prefill
from cimphony.record import Record, read_record
from cimphony.workload import Operation, Workload

RATES = (0.0, 0.05, 0.1, 0.3, 0.5, 1.0)
TUNED = "svd, fine-tuned"
WAYS = ("gradient", "sensitivity", "singular_value", "magnitude")
TASKS = {"mrpc": "MRPC", "sst-2": "SST-2", "sts-b": "STS-B", "digits": "digits", "llama": "Llama", "gpt": "GPT"}
ENCODER = Shape("MiniLM-L6", 6, 384, 1536, 12)


def record(records: Path | None = None) -> Record:
    """The accuracy claims, from a folder of records `hyflexpim-TASK.json`; None: those of this checkout.

    Claims on tasks that have no record are left out.
    """
    folder = str(records or RECORDS)
    kept = {task: _read(folder, task) for task in tasks(folder)}
    if not kept:
        raise DataError(
            f"records = {folder}: no hyflexpim-TASK.json is there; give the folder papers/results of a checkout, or "
            "make them with papers/hyflexpim_accuracy.py"
        )
    used = {task: {key: one.settings[key] for key in one.settings if key not in ("noise", "variants")}
            for task, one in kept.items()}  # fmt: skip
    return claims_record(
        "HyFlexPIM (ISCA 2025): accuracy", claims(folder), figures(folder),
        settings={"paper": "hyflexpim", "claims": "accuracy", "experiments": used,
                  "noise": next(iter(kept.values())).settings["noise"]},
        assumptions=[
            "models and data are not the paper's: MiniLM (6 layers of 384) for BERT-Base, a Llama of 260,000 weights "
            "and a byte-level GPT for Llama-3.2-1B and GPT-2, a small vision transformer on digits for ViT-Base",
            "means over chip seeds 0 to 4; encoders on 160 examples of the dev set",
            "reads: effective weights, as the paper's simulation has them; exact reads are beside them in the records",
            "made by: python papers/hyflexpim_accuracy.py TASK --model MODEL --data DATA --work FOLDER --grid main "
            "stages released wan exact attention inputs shares (encoders: --batches 5; texts: decoder shares)",
            *(f"{task}: stopped before every grid was done; claims use what is finished"
              for task, one in kept.items() if not one.complete),
        ],
    )  # fmt: skip


def tasks(folder: str) -> list[str]:
    """Tasks that have a record in a folder."""
    return [task for task in TASKS if (Path(folder) / f"hyflexpim-{task}.json").exists()]


def claims(folder: str) -> list[Claim]:
    """Every claim of hyflexpim_measured.yaml whose task has a record, bound to the folder."""
    bound, found = load_claims("hyflexpim_measured", _MEASURES, folder), tasks(folder)
    return [one for one in bound if getattr(one.measure, "keywords", {})["task"] in found]


@cache
def _read(folder: str, task: str) -> Record:
    return read_record(Path(folder) / f"hyflexpim-{task}.json")


def _values(folder: str, task: str, noise: str, way: str, rate: float, stage: str = TUNED) -> list[float]:
    """The metric on every chip. Quiet SLC cells alone are the same under every noise that leaves them quiet."""
    if rate == 1.0 and noise != "wan":
        noise = "ber-4.04"
    wanted = {"noise": noise, "stage": stage, "slc_rate": rate, "way": way if 0 < rate < 1 else "any",
              "variant": "", "fidelity": "effective"}  # fmt: skip
    points = _read(folder, task).results["points"]
    found = [point["value"] for point in points if all(point[key] == value for key, value in wanted.items())]
    if not found:
        raise DataError(
            f"hyflexpim-{task}.json in {folder} has no point {wanted}; papers/hyflexpim_accuracy.py makes it"
        )
    return found


# what claims measure


def drop(folder: str, task: str, noise: str, rate: float, way: str = "gradient") -> float:
    """Points of the metric lost against the same model without noise (all ranks in quiet SLC)."""
    quiet = statistics.mean(_values(folder, task, "ber-4.04", way, 1.0))
    return 100 * (quiet - statistics.mean(_values(folder, task, noise, way, rate)))


def loss_growth(folder: str, task: str, noise: str, rate: float, way: str = "gradient") -> float:
    """Growth of the loss (ln perplexity) against all ranks in quiet SLC [%]."""
    quiet, found = (
        statistics.mean(math.log(value) for value in _values(folder, task, at, way, share))
        for at, share in (("ber-4.04", 1.0), (noise, rate))
    )
    return 100 * (found / quiet - 1)


def advantage(folder: str, task: str, other: str, stage: str = TUNED, rate: float | None = None) -> float:
    """Metric with ranks chosen by gradient over that with another choice, at a rate or the mean of 5 to 50 %."""
    rates = RATES[1:-1] if rate is None else (rate,)
    ours = statistics.mean(statistics.mean(_values(folder, task, "ber-4.04", "gradient", rate)) for rate in rates)
    theirs = statistics.mean(statistics.mean(_values(folder, task, "ber-4.04", other, rate, stage)) for rate in rates)
    return ours / theirs


def top_share(folder: str, task: str, top: str, stage: str = TUNED) -> float:
    """Share of a layer's |gradient| in the top ranks, mean over layers [%]."""
    return 100 * statistics.mean(_read(folder, task).results["gradient_shares"][stage][top])


def concentration(folder: str, task: str, before: str, top: str = "10%") -> float:
    """Share in the top ranks after fine-tuning over that in the top ranks (or rows) before."""
    return top_share(folder, task, top) / top_share(folder, task, top, before)


def truncation(folder: str, task: str, stage: str) -> float:
    """Points of the metric lost by SVD alone, or with fine-tuning, without any chip."""
    digital = _read(folder, task).results["digital"]
    return 100 * (digital["dense"] - digital[stage])


def truncation_loss(folder: str, task: str, stage: str) -> float:
    """Loss (ln perplexity) after SVD alone, or with fine-tuning, over that of the dense model, without any chip."""
    digital = _read(folder, task).results["digital"]
    return math.log(digital[stage]) / math.log(digital["dense"])


_MEASURES = (drop, loss_growth, advantage, top_share, concentration, truncation, truncation_loss)


# figures 11 to 13 again, and what the rate costs


def figures(folder: str) -> list[dict[str, Any]]:
    """Metric by SLC rate and choice of ranks, and the trade-off of the encoder on SST-2; plain data."""
    drawn, x = list[dict[str, Any]](), [100 * rate for rate in RATES]
    for task in tasks(folder):
        if task in ("llama", "gpt"):
            continue  # perplexities in the thousands
        axes = "SLC rate [%]", _read(folder, task).results["metric"]
        lines = {way: _means(folder, task, way) for way in WAYS}
        title = f"{TASKS[task]}, 4.04 % of 2-bit cells in error"
        drawn.append(figure(f"13, {TASKS[task]}", title, axes, x, lines))
    if "sst-2" in tasks(folder):
        metric = _means(folder, "sst-2", "sensitivity")
        lines = {"accuracy (sensitivity)": [value / metric[-1] for value in metric], **_costs()}
        title = "SST-2, 4.04 % errors: what the SLC rate buys and costs"
        drawn.append(figure("trade-off", title, ("SLC rate [%]", "over all ranks in SLC"), x, lines))
    return drawn


def _means(folder: str, task: str, way: str) -> list[float]:
    return [statistics.mean(_values(folder, task, "ber-4.04", way, rate)) for rate in RATES]


def _costs() -> dict[str, list[float]]:
    """Energy, time between texts and arrays of the decomposed encoder by SLC rate, over those with SLC alone."""
    work, base = decomposed(prefill(ENCODER, 128)), load_chip("hyflexpim")
    chips = [base.replace({"units.analog.cell.slc_rate": rate}) for rate in RATES]
    made = [estimate(work, chip) for chip in chips]
    single = [place(work, one_copy(chip)) for chip in chips]
    quantities = {"energy": [one.energy for one in made], "interval": [one.interval for one in made],
                  "arrays of one copy": [float(one.arrays) for one in single]}  # fmt: skip
    return {name: [value / values[-1] for value in values] for name, values in quantities.items()}


def decomposed(work: Workload) -> Workload:
    """Every stored matrix as two at the hard threshold, ranks in one cell mode, as `decompose_` and `trace` have it."""
    operations: list[Operation] = []
    for one in work.operations:
        if one.kind != "static_matmul":
            operations.append(one)
            continue
        rank = one.k * one.n // (one.k + one.n)
        right, left = {"layer": f"{one.layer}.right", "n": rank}, {"layer": f"{one.layer}.left", "k": rank}
        operations += [one.model_copy(update=right), one.model_copy(update={**left, "modes_by": "row"})]
    return work.model_copy(update={"operations": operations})
