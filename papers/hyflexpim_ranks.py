"""Which score tells how much a rank suffers in MLC: one rank at a time is moved there, all others stay in quiet SLC.

    python papers/hyflexpim_ranks.py SST-2 --model ENCODER --data GLUE_FOLDER --work WORK_FOLDER
    python papers/hyflexpim_ranks.py SST-2 --model ENCODER --data GLUE_FOLDER --work WORK_FOLDER --batches 5 --outliers

`moved` is the rms change of the logits over the rms spread of the digital ones, `loss` the change of the loss, means
over chips; both are compared with the scores by Spearman's rank correlation, layer by layer. `gradient_against_sigma`:
the same between |dL/dsigma| and sigma over all ranks of a layer. Stop and go on as you like. The weights are those of
papers/hyflexpim_accuracy.py; the record goes to papers/results.
"""

import argparse
import copy
import math
import time
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from hyflexpim_accuracy import SETTINGS
from torch import Tensor, nn
from torch.nn import functional as F

from cimphony.evaluate.glue import spearman
from cimphony.evaluate.metrics import evaluating
from cimphony.methods.gradient_redistribution import assign_
from cimphony.nn import convert_, program_
from cimphony.nn.layers import AnalogLayer, place_ranks
from cimphony.nn.low_rank import FusedLowRank
from cimphony.papers.hyflexpim_accuracy import NOISE, chip
from cimphony.papers.hyflexpim_studies import STAGES, Glue, Study
from cimphony.record import Draft, Record

LAYERS = ("0.attention.self.query", "1.attention.self.key", "2.attention.self.value", "3.attention.output.dense",
          "4.intermediate.dense", "5.output.dense")  # fmt: skip
RANKS, CHIPS, NOISE_NAME = 12, 5, "ber-4.04"
OUTLYING = 100  # times the median activity of a layer
VARIANT = "float inputs"  # rounding of activations moves the logits by more than the noise of one rank does
SCORES = ("gradient", "sensitivity", "singular_value", "magnitude", "activity")


def scores(pair: FusedLowRank, activity: Tensor) -> dict[str, Tensor]:
    """Every score of every rank; `activity`: rms of the value that a rank hands from diag(sigma) V^T to U."""
    weights = pair.right.weight.detach().abs().sum(dim=1) + pair.left.weight.detach().abs().sum(dim=0)
    sigma, gradient = pair.sigma.abs(), pair.gradient
    return dict(zip(SCORES, (gradient, gradient * sigma, sigma, weights, activity), strict=True))


def activities(model: nn.Module, pairs: dict[str, FusedLowRank], batches: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Rms over tokens of the output of diag(sigma) V^T, rank by rank, on the digital model."""
    squares: dict[str, list[Tensor]] = {name: [] for name in pairs}
    hooks = [
        pair.right.register_forward_hook(lambda _, __, out, at=name: squares[at].append(out.square().flatten(0, -2)))
        for name, pair in pairs.items()
    ]
    with evaluating(model):
        for batch in batches:
            model(**batch)
    for hook in hooks:
        hook.remove()
    return {name: torch.cat(found).mean(dim=0).sqrt() for name, found in squares.items()}


def place(pair: FusedLowRank, in_mlc: int | None, seed: int) -> None:
    """Write one layer's cells: all ranks in SLC but one."""
    importance = torch.ones_like(pair.sigma)
    if in_mlc is not None:
        importance[in_mlc] = 0
    place_ranks(pair, importance, 1.0 if in_mlc is None else 1 - 1 / len(importance))
    for side in (pair.left, pair.right):
        cast("AnalogLayer", side).program(seed=seed)


def drafted(study: Study, path: Path) -> Draft:
    settings = study.settings() | {"chip": "hyflexpim", "noise": {NOISE_NAME: NOISE[NOISE_NAME]}}
    settings |= {"variant": VARIANT, "chips": CHIPS}
    return Draft("study", f"Ranks one at a time in MLC: {study.task.name}", path, settings=settings)


def measure(study: Study, draft: Draft, minutes: float) -> Record:
    """Points go into the record one by one."""
    stop = time.monotonic() + 60 * minutes
    model = copy.deepcopy(study.models[STAGES[2]])
    named = {name: part for name, part in model.named_modules() if isinstance(part, FusedLowRank)}
    against = {name: round(spearman(one.gradient.numpy(), one.sigma.abs().numpy()), 3) for name, one in named.items()}
    draft.save(gradient_against_sigma=against)
    points: list[dict[str, Any]] = draft.results.setdefault("points", [])
    pairs = {name: part for name, part in named.items() if name.endswith(LAYERS)}
    found = {name: scores(pair, activity) for (name, pair), activity in zip(
        pairs.items(), activities(model, pairs, study.task.training(0)[:4]).values(), strict=True)}  # fmt: skip
    program_(
        assign_(
            convert_(model, chip(NOISE_NAME, variant=VARIANT), exclude=study.task.digital), 1.0, by="singular_value"
        )
    )
    task = cast("Glue", study.task)
    quiet, labels = task.outputs(model), torch.cat([one for _, one in task.held_out])
    for name, pair in pairs.items():
        order = pair.sigma.argsort(descending=True)
        for rank in order[torch.linspace(0, len(order) - 1, RANKS).long()].tolist():
            if any(point["layer"] == name and point["rank"] == rank for point in points):
                continue
            made: list[Tensor] = []
            for seed in range(CHIPS):
                place(pair, rank, seed)
                made.append(task.outputs(model))
            moved = [float((one - quiet).square().mean().sqrt() / quiet.std()) for one in made]
            lost = [float(F.cross_entropy(one, labels) - F.cross_entropy(quiet, labels)) for one in made]
            own = {score: float(values[rank]) for score, values in found[name].items()}
            points.append({"layer": name, "rank": rank, **own, "moved": moved, "loss": lost})
            draft.save(correlation=correlations(points))
            if time.monotonic() > stop:
                return draft.record
        place(pair, None, 0)
    return draft.save(complete=True)


def outliers(study: Study, draft: Draft) -> Record:
    """Ranks of outlying activity: where every score places them, and the metric with 50 % in SLC, them among it.

    The same without them is in the record of papers/hyflexpim_accuracy.py.
    """
    model = copy.deepcopy(study.models[STAGES[2]])
    pairs = {name: part for name, part in model.named_modules() if isinstance(part, FusedLowRank)}
    rows: list[dict[str, Any]] = []
    for (name, pair), activity in zip(
        pairs.items(), activities(model, pairs, study.task.training(0)[:4]).values(), strict=True
    ):
        relative, scored = activity / activity.median(), scores(pair, activity)
        for rank in (relative > OUTLYING).nonzero().flatten().tolist():
            places = {score: int((values > values[rank]).sum()) + 1 for score, values in scored.items()}
            rows.append({"layer": name, "rank": rank, "of": len(activity), "activity over median":
                         round(float(relative[rank]), 1), **places})  # fmt: skip
    convert_(model, chip(NOISE_NAME), exclude=study.task.digital)
    found: dict[str, list[float]] = {}
    for way in ("gradient", "magnitude"):
        for seed in range(CHIPS):
            assign_(model, 0.5, by=way)
            for row in rows:
                pair = pairs[row["layer"]]
                importance = scores(pair, pair.sigma)[way].clone()
                importance[row["rank"]] = importance.max() + 1
                place_ranks(pair, importance, 0.5)
            value = study.task.judge(study.task.outputs(program_(model, seed=seed)))
            found.setdefault(f"{way}, and these ranks in SLC", []).append(value)
    return draft.save(complete=draft.record.complete, **{"outliers": rows, "with outliers kept": found})


def correlations(points: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Spearman's correlation of every score with `moved` and with |loss|, means over chips, layer by layer."""
    rows: list[dict[str, Any]] = []
    for name in dict.fromkeys(point["layer"] for point in points):
        mine = [point for point in points if point["layer"] == name]
        if len(mine) < 3:
            continue
        moved = np.array([point["moved"] for point in mine]).mean(axis=1)
        lost = np.abs([point["loss"] for point in mine]).mean(axis=1)
        for effect, values in (("moved", moved), ("loss", lost)):
            row = {score: round(spearman(np.array([p[score] for p in mine]), values), 3) for score in SCORES}
            rows.append({"layer": name, "effect": effect, **row})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=["MRPC", "SST-2"])
    parser.add_argument("--model", required=True, help="folder or hub name of an encoder")
    parser.add_argument("--data", required=True, help="GLUE folder")
    parser.add_argument("--work", type=Path, required=True, help="folder with fine-tuned weights")
    parser.add_argument("--batches", type=int, default=1, help="about so many batches of the dev set")
    parser.add_argument("--outliers", action="store_true", help="instead, the ranks of outlying activity")
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop after so long")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    epochs, lr, train = SETTINGS[arguments.task]
    task = Glue(arguments.model, arguments.data, arguments.task, train=train, dev=arguments.batches)
    study = Study(task, arguments.work, epochs=epochs, lr=lr)
    path = Path(__file__).parent / "results" / f"hyflexpim-ranks-{arguments.task.lower()}.json"
    draft = drafted(study, path)
    record = outliers(study, draft) if arguments.outliers else measure(study, draft, arguments.minutes)
    print(f"{path}: {len(record.results.get('points', ()))} ranks, {'complete' if record.complete else 'stopped'}")


if __name__ == "__main__":
    main()
