"""What a search finds with a quarter of a grid's points: Optuna's samplers and chance, on the committed studies.

    python benchmarks/search_against_grid.py [-o benchmarks/results/search_against_grid.json] [FOLDER ...]

Nothing is simulated again: a search asks for points of the same axes, and what they measure is looked up in the study's
record, which is what measuring them would give. For every study, sampler and seed: how many points of the grid's front
the search's points equal or dominate, and how much of the area that the grid's front dominates they dominate too
(hypervolume; measures as logarithms, the reference at the grid's worst).
"""

import argparse
import json
import math
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from cimphony.record import read_record, versions
from cimphony.sweep import Study, front, make_study, uncovered
from cimphony.sweep.search import batches
from cimphony.sweep.store import digest

RESULTS = Path(__file__).parent.parent / "studies" / "results"
KINDS = {"tpe": {"kind": "optuna", "sampler": "tpe"}, "nsga2": {"kind": "optuna", "sampler": "nsga2"},
         "random": {"kind": "random"}}  # fmt: skip
SEEDS = range(10)
_SHARE = 4


def searched(study: Study, known: dict[str, Any], folder: Path) -> list[dict[str, float]]:
    """Measures of the points that a search asks for."""
    store: Any = SimpleNamespace(folder=folder, points={})
    found: list[dict[str, float]] = []
    for batch in batches(study, store):
        for axes in batch:
            row = known[digest(axes)]
            store.points[digest(axes)] = SimpleNamespace(results=row)
            found.append(row["measures"])
    return found


def area(points: Sequence[dict[str, float]], study: Study, worst: Sequence[float]) -> float:
    """What the points dominate, of two goals, as logarithms."""
    (one, _), (other, _) = study.goals.items()
    edge, total = worst[1], 0.0
    for row in front(points, study.goals, lambda row: row):  # best first in the first goal
        across, up = _logs(row, (one, other), study)
        total += max(0.0, worst[0] - across) * max(0.0, edge - up)
        edge = min(edge, up)
    return total


def _logs(row: dict[str, float], names: Sequence[str], study: Study) -> list[float]:
    return [math.log(row[name]) * (1 if study.goals[name] == "min" else -1) for name in names]


def compare(folder: Path) -> dict[str, Any]:
    """One study."""
    record = read_record(folder / "study.json")
    known = {row["digest"]: row for row in record.results["points"]}
    rows = [row["measures"] for row in known.values()]
    study = make_study(record.settings)
    names = list(study.goals)
    assert len(names) == 2
    worst = [max(_logs(row, names, study)[at] for row in rows) for at in (0, 1)]
    best, whole, count = front(rows, study.goals, lambda row: row), area(rows, study, worst), len(rows) // _SHARE
    result: dict[str, Any] = {"points": len(rows), "front": len(best), "searched": count}
    for kind, options in KINDS.items():
        runs: list[dict[str, float]] = []
        for seed in SEEDS:
            asked = study.model_copy(update={"search": type(study.search)(points=count, seed=seed, **options)})
            with tempfile.TemporaryDirectory() as place:
                found = searched(asked, known, Path(place))
            missed = len(uncovered(found, best, study.goals))
            runs.append({"seed": seed, "covered": len(best) - missed, "area": area(found, study, worst) / whole})
        result[kind] = {
            "searches_that_cover_the_front": sum(run["covered"] == len(best) for run in runs),
            "mean_covered": statistics.fmean(run["covered"] for run in runs),
            "mean_area": statistics.fmean(run["area"] for run in runs),
            "least_area": min(run["area"] for run in runs),
            "runs": runs,
        }
    return result


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description="compare searches with grids")
    arguments.add_argument("folders", nargs="*", type=Path, default=None)
    arguments.add_argument("-o", "--output", type=Path)
    chosen = arguments.parse_args()
    found = {folder.name: compare(folder) for folder in chosen.folders or sorted(RESULTS.iterdir())}
    for name, one in found.items():
        print(name, one["points"], "points,", one["front"], "on the front,", one["searched"], "searched")
        for kind in KINDS:
            print("  ", kind, {key: value for key, value in one[kind].items() if key != "runs"})
    if chosen.output:
        chosen.output.write_text(json.dumps(found | {"versions": versions()}, indent=1) + "\n")
