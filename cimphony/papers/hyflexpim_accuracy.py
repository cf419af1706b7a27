"""HyFlexPIM's accuracy on real data: SLC rate, selection rule, noise, fidelity (Figs 11 to 13).

A study (`hyflexpim_studies`) is put on the published chip under named readings of its noise; every measured point is
in the record as soon as it is there, and a run that was stopped goes on from it.
"""

import copy
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from cimphony.chip import Chip, CrossbarUnit, load_chip
from cimphony.evaluate.metrics import evaluating
from cimphony.methods.gradient_redistribution import Selection, assign_, gradient_share
from cimphony.nn import age_, calibrate, convert_, program_
from cimphony.nn.low_rank import FusedLowRank, LowRankLinear
from cimphony.papers.hyflexpim_studies import STAGES, Study
from cimphony.record import Draft, Record

# readings of the device noise; every result names its own
NOISE: dict[str, dict[str, Any]] = {
    "released": {  # the released simulation: 0.025 on every signed digit, quiet SLC, no converter
        "units.analog.encoding.weights": "signed_digits",
        "units.analog.adc": None,
        "units.analog.cell.device": {"slc": {"kind": "ideal"}, "mlc": {"kind": "gaussian", "multiplicative": 0.025}},
    },
    "ber-4.04": {  # additive in cell levels: 4.04 % symbol errors of a 2-bit cell, quiet SLC
        "units.analog.cell.device": {"slc": {"kind": "ideal"}, "mlc": {"kind": "gaussian", "additive": 0.259 / 3}},
    },
    "wan": {"units.analog.cell.device": {"kind": "rram", "g_min": 0.25e-6}},  # measured, SLC and MLC alike, after a day
    "preset": {},  # the chip as it is described: 0.025 on 2-bit cells of two's complement, behind its converters
}
# what else may differ from the published chip
VARIANTS: dict[str, dict[str, Any]] = {
    "": {},
    "static inputs": {"units.analog.input.range": "static"},
    "float inputs": {"units.analog.input.bits": None},
    "digital attention": {"units.digital.attention": {"probability_bits": 12}, "units.sfu.bits": 16},
    "flipped columns": {"units.analog.encoding.flip": True},
}
DAY = 86_400.0
RANKED: tuple[Selection, ...] = ("gradient", "sensitivity", "singular_value", "magnitude")
WAYS: dict[str, tuple[Selection, ...]] = {STAGES[0]: ("magnitude",), STAGES[1]: RANKED, STAGES[2]: RANKED}
RATES = (0.0, 0.05, 0.1, 0.3, 0.5, 1.0)
_KEY = ("stage", "way", "noise", "variant", "fidelity", "slc_rate", "seed")


@dataclass(frozen=True)
class Grid:
    """What to measure: every combination."""

    stages: tuple[str, ...] = STAGES
    ways: tuple[Selection, ...] = RANKED
    rates: tuple[float, ...] = RATES
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    noises: tuple[str, ...] = ("ber-4.04", "wan", "released")
    fidelity: str = "effective"
    variant: str = ""

    def points(self, noise: str) -> Iterator[dict[str, Any]]:
        """Points of one reading of the noise, seed by seed; without SLC or MLC cells every selection is the same."""
        for seed in self.seeds:
            for stage in self.stages:
                for rate in self.rates:
                    if rate == 1 and noise != "wan" and seed != self.seeds[0]:
                        continue  # quiet SLC cells: every chip is alike
                    named = [way for way in self.ways if way in (*WAYS[stage], "random")] or [WAYS[stage][0]]
                    for way in named if 0 < rate < 1 else ("any",):
                        yield dict(zip(_KEY, (stage, way, noise, self.variant, self.fidelity, rate, seed), strict=True))


def chip(noise: str, fidelity: str = "effective", variant: str = "") -> Chip:
    """HyFlexPIM under one reading of the noise."""
    changes = {**NOISE[noise], **VARIANTS[variant]}
    if fidelity == "effective" and changes.get("units.analog.input.bits", 8) is None:
        changes["units.analog.adc"] = None  # a converter needs whole numbers
    return load_chip("hyflexpim").replace({**changes, "units.analog.fidelity": fidelity})


def run(study: Study, path: Path, grids: list[Grid], *, minutes: float = math.inf) -> Record:
    """Measure a study; the record at `path` grows point by point and is gone on with where it exists.

    Args:
        minutes: stop after so long; the same call goes on.

    Raises DataError where the record is of another study.
    """
    draft, stop = _draft(study, path), time.monotonic() + 60 * minutes
    if not draft.results:
        digital = {stage: study.task.judge(study.task.outputs(model)) for stage, model in study.models.items()}
        draft.save(metric=study.task.metric, digital=digital, points=[])
    points: list[dict[str, Any]] = draft.results["points"]
    for point in _measured(study, grids, {tuple(point[name] for name in _KEY) for point in points}):
        points.append(point)
        draft.save(points=points)
        if time.monotonic() > stop:
            return draft.record
    return draft.save(complete=True)


def _draft(study: Study, path: Path) -> Draft:
    settings = study.settings() | {"noise": NOISE, "variants": VARIANTS, "chip": "hyflexpim"}
    title = f"HyFlexPIM accuracy: {study.task.name}"
    return Draft("study", title, path, may_grow=("noise", "variants"), settings=settings)


def _measured(study: Study, grids: list[Grid], done: set[tuple[Any, ...]]) -> Iterator[dict[str, Any]]:
    digital: dict[str, Tensor] = {}
    for grid in grids:
        for noise in grid.noises:
            todo = [point for point in grid.points(noise) if tuple(point[name] for name in _KEY) not in done]
            models: dict[str, nn.Module] = {}
            for point in todo:
                stage = point["stage"]
                if stage not in digital:
                    digital[stage] = study.task.outputs(study.models[stage])
                if stage not in models:
                    models[stage] = _on_chip(study, stage, noise, grid)
                yield point | _measure(study, models[stage], point, digital[stage])


def _on_chip(study: Study, stage: str, noise: str, grid: Grid) -> nn.Module:
    model, described = copy.deepcopy(study.models[stage]), chip(noise, grid.fidelity, grid.variant)
    convert_(model, described, exclude=study.task.digital)
    coding = described.unit("analog", CrossbarUnit).input
    if coding.range == "static" and coding.bits is not None:
        with evaluating(model), calibrate(model):
            for batch in study.task.training(200)[:4]:
                model(**batch)
    return model


def _measure(study: Study, model: nn.Module, point: dict[str, Any], digital: Tensor) -> dict[str, Any]:
    """The metric, and how far the outputs moved: rms of the change over the rms spread of the digital outputs."""
    way: Any = "magnitude" if point["way"] == "any" else point["way"]
    program_(assign_(model, point["slc_rate"], by=way, seed=point["seed"]), seed=point["seed"])
    if point["noise"] == "wan":
        age_(model, seconds=DAY)
    outputs = study.task.outputs(model)
    moved = (outputs - digital).double().square().mean() / digital.double().var(dim=0, correction=0).mean()
    return {"value": round(study.task.judge(outputs), 6), "moved": round(float(moved.sqrt()), 6)}


def gradient_shares(study: Study) -> dict[str, dict[str, list[float]]]:
    """Share of a layer's |gradient| in the top 5 and 10 % of rows or ranks, by stage (Fig. 11), layer by layer."""
    rows = study.row_gradients()
    before = {f"{top:.0%}": [_top_share(row, top) for row in rows.values()] for top in (0.05, 0.1)}
    stages = {"svd, not truncated": study.untruncated(), **{stage: study.models[stage] for stage in STAGES[1:]}}
    return {"rows before svd": before} | {
        stage: {f"{top:.0%}": [gradient_share(layer, top) for layer in _low_rank(model)] for top in (0.05, 0.1)}
        for stage, model in stages.items()
    }


def _top_share(values: Tensor, top: float) -> float:
    ordered = values.sort(descending=True).values
    return float(ordered[: max(1, round(top * ordered.numel()))].sum() / ordered.sum())


def _low_rank(model: nn.Module) -> list[LowRankLinear | FusedLowRank]:
    return [module for module in model.modules() if isinstance(module, LowRankLinear | FusedLowRank)]


def add_gradient_shares(study: Study, path: Path) -> Record:
    """Put the shares into the record of a study, once."""
    draft = _draft(study, path)
    if "gradient_shares" in draft.results:
        return draft.record
    shares = {
        stage: {top: [round(one, 4) for one in values] for top, values in tops.items()}
        for stage, tops in gradient_shares(study).items()
    }
    return draft.save(complete=draft.record.complete, gradient_shares=shares)
