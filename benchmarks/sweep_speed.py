"""How much faster two workers are than one, local and on Ray: points that compute, and points that only cost.

    python benchmarks/sweep_speed.py [-o benchmarks/results/sweep_speed.json]

The same points are measured by one worker and by two, the two runs side by side in time (one, two, two, one), each
in a new folder. What is timed begins with the first record and ends with the last, so that it is points and not the
start of workers, which is timed apart. Points compute: the demo model on one chip each, reads in effective fidelity.
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

from cimphony.record import versions
from cimphony.sweep import make_study, run_study

_POINTS = 12


def study(workers: int) -> Any:
    """Points of about the same work; another seed is another chip."""
    return make_study(
        {
            "name": f"speed of {workers}",
            "chip": "hyflexpim",
            "data": {"text": "demo", "max_tokens": 256},
            "axes": {"fidelity": ["effective"], "seed": list(range(_POINTS))},
            "measures": ["perplexity", "energy"],
        }
    )


def timed(workers: int, ray: bool) -> dict[str, float]:
    """Seconds from the first record to the last, over the points between; seconds until the first; of a point."""
    with tempfile.TemporaryDirectory() as place:
        began = perf_counter()
        record = run_study(study(workers), place, workers=workers, ray=ray, progress=False)
        whole = perf_counter() - began
        times = sorted(path.stat().st_mtime for path in Path(place).glob("points/*.json"))
        points = [json.loads(path.read_text())["duration"] for path in Path(place).glob("points/*.json")]
    assert record.results["done"] == _POINTS
    rate = (len(times) - workers) / (times[-1] - times[workers - 1])  # each worker's first point loads the model
    return {"points_per_second": rate, "whole_seconds": whole, "point_seconds": statistics.median(points)}


def measure() -> dict[str, Any]:
    """Ratios of two runs each."""
    found: dict[str, Any] = {}
    for kind, ray in (("local", False), ("ray", True)):
        runs = {1: list[dict[str, float]](), 2: list[dict[str, float]]()}
        for workers in (1, 2, 2, 1):
            runs[workers].append(timed(workers, ray))
        rates = {workers: statistics.mean(one["points_per_second"] for one in both) for workers, both in runs.items()}
        found[kind] = {"speed_up_of_two_workers": rates[2] / rates[1], "one": runs[1], "two": runs[2]}
    return found | {"points": _POINTS, "versions": versions()}


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description="time the workers of a study")
    arguments.add_argument("-o", "--output", type=Path)
    chosen = arguments.parse_args()
    text = json.dumps(measure(), indent=1)
    print(text)
    if chosen.output:
        chosen.output.write_text(text + "\n")
