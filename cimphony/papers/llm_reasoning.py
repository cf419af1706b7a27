"""Can We Trust LLMs on Memristors? (arXiv 2603.13725, DAC 2026): its three findings, looked for on small models.

Only the abstract was at hand: models, noise, levels and benchmarks are not known, and no number is stated. So a claim
here is a direction, and what is measured is the share of our models that show it by more than two standard errors
over chips, from the records that papers/reasoning_study.py writes. Nothing is said about large language models.
"""

import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cimphony.errors import StateError
from cimphony.papers.claims import RECORDS, Claim, claims_record, figure, load_claims
from cimphony.record import Record, read_record

SETS = ("even", "seldom")  # as good at once as by thinking; near chance at once
LOW, HIGH, COPIES = 0.02, 0.12, 0.08  # noise, as a share of a tensor's largest weight
OTHERS = ("middle", "deep", "attention", "mlp", "all")  # where the same number of cells may go instead

Scores = dict[str, Any]  # "way to ask: score" -> values by chip
Studies = dict[str, list[dict[str, Scores]]]  # by set, for each model its cases


def record(folder: Path | None = None) -> Record:
    """All claims measured, with the study's curves as figures."""
    held = studies(folder)
    return claims_record(
        "Can We Trust LLMs on Memristors? (arXiv 2603.13725)", claims(held), figures(held),
        settings={"paper": "llm-reasoning", "low": LOW, "high": HIGH, "copies at": COPIES},
        assumptions=[
            "models of 57,000 weights on one synthetic task, trained here, stand for large language models",
            "a claim's value is the share of models that show it by more than two standard errors over their chips, "
            "paired by chip; the paper's 1 means that it says so without exception",
        ],
    )  # fmt: skip


def studies(folder: Path | None = None) -> Studies:
    """Cases of every model by set, where the study's record is at hand."""
    found: Studies = {}
    for kind in SETS:
        path = (folder or RECORDS) / f"llm-reasoning-{kind}.json"
        if path.is_file():
            held: dict[str, dict[str, Scores]] = read_record(path).results["cases"]
            found[kind] = [held[model] for model in sorted(held)]
    return found


def scores(model: dict[str, Scores], case: str, ask: str, score: str = "accuracy") -> list[float]:
    """By chip, for a way to ask; the digital model's once for every chip. KeyError: the study has not come so far."""
    found = model[case][f"{ask}: {score}"]
    return found if case != "digital" else [found] * len(model[f"sigma {LOW}"][f"{ask}: {score}"])


def beyond_error(better: Sequence[float], worse: Sequence[float]) -> bool:
    """Whether the mean difference of pairs is more than two standard errors above 0."""
    apart = [one - other for one, other in zip(better, worse, strict=True)]
    return statistics.fmean(apart) > 2 * statistics.stdev(apart) / math.sqrt(len(apart))


def share(
    held: Studies, sets: list[str], better: tuple[str, str], worse: list[tuple[str, str]], score: str = "accuracy"
) -> float:
    """Of the models of some sets, those where one case and way to ask is better than all others, beyond error.

    Models whose study has not come so far do not count. Raises StateError where none has.
    """
    shown: list[bool] = []
    for model in (model for kind in sets for model in held.get(kind, ())):
        try:
            pairs = [(scores(model, *better, score), scores(model, *one, score)) for one in worse]
        except KeyError:
            continue
        shown.append(all(beyond_error(*pair) for pair in pairs))
    if not shown:
        raise StateError("needs the record of papers/reasoning_study.py, in a checkout")
    return statistics.fmean(shown)


def claims(held: Studies | None = None) -> list[Claim]:
    """The abstract's statements, from llm_reasoning.yaml, on models at hand."""
    return load_claims("llm_reasoning", (share,), studies() if held is None else held)


def figures(held: Studies) -> list[dict[str, Any]]:
    """Accuracy and length by noise for both modes, and what copies win; means over models and chips."""
    found: list[dict[str, Any]] = []
    for kind, models in held.items():

        def mean(case: str, ask: str, score: str = "accuracy", models: Any = models) -> float:
            return statistics.fmean(value for model in models for value in scores(model, case, ask, score))

        cases = [case for case in models[0] if all(case in model for model in models)]
        sigmas = sorted(float(case[6:]) for case in cases if case.startswith("sigma ") and "," not in case)
        for score, unit in (("accuracy", ""), ("length", "tokens")):
            asks = [key.removesuffix(f": {score}") for key in models[0]["digital"] if key.endswith(f": {score}")]
            lines = {ask: [mean(f"sigma {one}", ask, score) for one in sigmas] for ask in asks}
            found.append(figure(str(len(found) + 1), f"{score}, set {kind}", ("sigma", unit), sigmas, lines))
        kept = {"none": f"sigma {COPIES}"} | {place: f"sigma {COPIES}, {place}" for place in ("shallow", *OTHERS)}
        places = [place for place, case in kept.items() if case in cases]
        asks = ("direct", "thinking") if kind == "even" else ("thinking",)
        lines = {ask: [mean(kept[place], ask) for place in places] for ask in asks}
        title = f"accuracy at sigma {COPIES} by place of the copies, set {kind}"
        found.append(figure(str(len(found) + 1), title, ("", ""), places, lines))
    return found
