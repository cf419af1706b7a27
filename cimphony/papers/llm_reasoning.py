"""Can We Trust LLMs on Memristors? (arXiv 2603.13725, DAC 2026): its three findings, looked for on small models.

Only the abstract was at hand: models, noise, levels and benchmarks are not known, and no number is stated. So a claim
here is a direction, and what is measured is the share of our models that show it by more than two standard errors
over chips, from the records that papers/reasoning_study.py writes. Nothing is said about large language models.
"""

import math
import statistics
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from cimphony.papers.claims import Claim, claims_record
from cimphony.record import Record, read_record

SETS = ("even", "seldom")  # as good at once as by thinking; near chance at once
LOW, HIGH, COPIES = 0.02, 0.12, 0.08  # noise, as a share of a tensor's largest weight
DEEPER = ("middle", "deep")  # layers where the same number of cells may go instead
OTHERS = (*DEEPER, "attention", "mlp", "all")
_RECORDS = Path(__file__).parents[2] / "papers" / "results"  # of a checkout; an installed package has none

Scores = dict[str, Any]  # "way to ask: score" -> values by chip
Paired = Callable[[dict[str, Scores]], tuple[Sequence[float], Sequence[float]]]  # the better and the worse, by chip


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


def studies(folder: Path | None = None) -> dict[str, list[dict[str, Scores]]]:
    """Cases of every model by set, where the study's record is at hand."""
    found: dict[str, list[dict[str, Scores]]] = {}
    for kind in SETS:
        path = (folder or _RECORDS) / f"llm-reasoning-{kind}.json"
        if path.is_file():
            held: dict[str, dict[str, Scores]] = read_record(path).results["cases"]
            found[kind] = [held[model] for model in sorted(held)]
    return found


# measures


def beyond_error(better: Sequence[float], worse: Sequence[float]) -> bool:
    """Whether the mean difference of pairs is more than two standard errors above 0."""
    apart = [one - other for one, other in zip(better, worse, strict=True)]
    return statistics.fmean(apart) > 2 * statistics.stdev(apart) / math.sqrt(len(apart))


def share(models: Sequence[dict[str, Scores]], *pairs: Paired) -> float:
    """Of the models, those for which every pair is apart."""
    return statistics.fmean(all(beyond_error(*pair(model)) for pair in pairs) for model in models)


def noisy(ask: str, sigma: float, placed: str = "", score: str = "accuracy") -> Callable[[dict[str, Scores]], Any]:
    """A score by chip at a noise, with the copies of a placement."""
    case = f"sigma {sigma}" + (placed and f", {placed}")
    return lambda model: model[case][f"{ask}: {score}"]


def clean(ask: str, score: str = "accuracy") -> Callable[[dict[str, Scores]], Any]:
    """The digital model's score, once for every chip of the study."""
    return lambda model: [model["digital"][f"{ask}: {score}"]] * len(model[f"sigma {LOW}"][f"{ask}: {score}"])


def _holds(model: dict[str, Scores], pair: Paired) -> bool:
    """Whether the study has come so far."""
    try:
        pair(model)
    except KeyError:
        return False
    return True


def _pair(better: Callable[..., Any], worse: Callable[..., Any]) -> Paired:
    return lambda model: (better(model), worse(model))


# claims

_UNKNOWN = "the benchmarks and their numbers are not public, and our study has one task"
_WEAK = "near chance when they answer at once, by our training: only thinking has something to lose"


def claims(held: dict[str, list[dict[str, Scores]]] | None = None) -> list[Claim]:
    """The abstract's statements; not derivable where the study's record is not at hand."""
    held = studies() if held is None else held
    every = [model for models in held.values() for model in models]
    able = {"direct": held.get("even", []), "thinking": every}  # better than chance without noise

    def claim(name: str, statement: str, models: Sequence[dict[str, Scores]], *pairs: Paired, note: str = "",
              built_in: bool = False) -> Claim:  # fmt: skip
        models = [model for model in models if all(_holds(model, pair) for pair in pairs)]
        if not models:
            return Claim(name, "abstract", statement, 1.0, "share of models", "not derivable", None,
                         "needs the record of papers/reasoning_study.py, in a checkout")  # fmt: skip
        status = "calibrated" if built_in else "trend"
        measured = partial(share, models, *pairs)
        return Claim(name, "abstract", statement, 1.0, "share of models", status, measured, note, tolerance=0.0)

    found = [
        claim(f"drop-{ask}", f"noise lowers accuracy, {ask}, sigma {HIGH}", models, _pair(clean(ask), noisy(ask, HIGH)))
        for ask, models in able.items()
    ]
    found.append(Claim("benchmarks", "abstract", "by amounts that depend on the benchmark", 1.0, "share of models",
                       "not derivable", None, _UNKNOWN))  # fmt: skip
    for kind in SETS:
        models, note = held.get(kind, []), _WEAK if kind == "seldom" else ""
        thinks, answers = (partial(noisy, ask) for ask in ("thinking", "direct"))
        found += [
            claim(f"low-{kind}", f"thinking is better at low noise, sigma {LOW}, set {kind}", models,
                  _pair(thinks(LOW), answers(LOW)), note=note),
            claim(f"high-{kind}", f"and worse at high noise, sigma {HIGH}, set {kind}", models,
                  _pair(answers(HIGH), thinks(HIGH))),
        ]  # fmt: skip
    for ask, models in able.items():
        shallow = noisy(ask, COPIES, "shallow")
        found += [
            claim(f"copies-{ask}", f"copies of the first layer win accuracy, {ask}, sigma {COPIES}", models,
                  _pair(shallow, noisy(ask, COPIES))),
            claim(f"shallow-{ask}", f"and more than the same cells in the middle or the last layer, {ask}", models,
                  *(_pair(shallow, noisy(ask, COPIES, other)) for other in DEEPER)),
            claim(f"shallow-best-{ask}", f"and more than anywhere else, {ask}", models,
                  *(_pair(shallow, noisy(ask, COPIES, other)) for other in OTHERS),
                  note="attention, MLP or all layers with as many cells in all; the strictest reading"),
        ]  # fmt: skip
    terse, plain = "thinking, terse examples", "thinking"
    found += [
        claim("icl-length", f"examples shorten the output, sigma {LOW}", every,
              _pair(noisy(plain, LOW, score="length"), noisy(terse, LOW, score="length")),
              built_in=True, note="terse examples with terse answers were in the training"),
        claim("icl-cost", f"at a cost in accuracy, sigma {LOW}", every, _pair(noisy(plain, LOW), noisy(terse, LOW)),
              note="how slight it is: docs/reasoning.md"),
    ]  # fmt: skip
    return found


# figures


def figures(held: dict[str, list[dict[str, Scores]]]) -> list[dict[str, Any]]:
    """Accuracy and length by noise for both modes, and what copies win; means over models and chips."""
    found: list[dict[str, Any]] = []
    for kind, models in held.items():
        cases = [case for case in models[0] if all(case in model for model in models)]
        sigmas = sorted(float(case[6:]) for case in cases if case.startswith("sigma ") and "," not in case)
        places = [place for place in ("", "shallow", *OTHERS) if f"sigma {COPIES}" + (place and f", {place}") in cases]
        for score, unit in (("accuracy", ""), ("length", "tokens")):
            asks = [key.removesuffix(f": {score}") for key in models[0]["digital"] if key.endswith(f": {score}")]
            series = [
                {"name": ask, "x": sigmas, "y": [mean(models, noisy(ask, one, score=score)) for one in sigmas]}
                for ask in asks
            ]
            found.append(_figure(f"{score}, set {kind}", "sigma", unit, series))
        series = [
            {"name": ask, "x": [place or "none" for place in places],
             "y": [mean(models, noisy(ask, COPIES, place)) for place in places]}
            for ask in (("direct", "thinking") if kind == "even" else ("thinking",))
        ]  # fmt: skip
        found.append(_figure(f"accuracy at sigma {COPIES} by place of the copies, set {kind}", "", "", series))
    return [{**one, "figure": str(at)} for at, one in enumerate(found, 1)]


def mean(models: Sequence[dict[str, Scores]], values: Callable[[dict[str, Scores]], Sequence[float]]) -> float:
    """Over all models and chips."""
    return statistics.fmean(value for model in models for value in values(model))


def _figure(title: str, x: str, y: str, series: list[dict[str, Any]]) -> dict[str, Any]:
    return {"title": title, "x": x, "y": y, "series": series, "published": []}
