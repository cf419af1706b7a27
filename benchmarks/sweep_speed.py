"""How much faster two workers are than one, local and on Ray, on points that compute.

    python benchmarks/sweep_speed.py [--turns 2] [--ray] [-o benchmarks/results/sweep_speed.json]

What is timed begins when every worker has its first point behind it (which loads the model) and ends with the last
record. Points compute: the demo model on one chip each, effective reads. A machine that does other things too has less
than two cores to give, so two processes that know nothing of each other, each with half of the points, say at the same
time what it has: the ceiling. Runs take turns, ratios are of medians.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import tempfile
from pathlib import Path
from time import time
from typing import Any

from cimphony.record import versions
from cimphony.sweep import make_study, run_study

_POINTS = 14


def study(seeds: list[int]) -> Any:
    """Points of the same work; another seed is another chip."""
    return make_study(
        {
            "name": "speed",
            "chip": "hyflexpim",
            "data": {"text": "demo", "max_tokens": 256},
            "axes": {"fidelity": ["effective"], "seed": seeds},
            "measures": ["perplexity", "energy"],
        }
    )


def run(folder: Path, seeds: list[int], workers: int, ray: bool) -> None:
    """One study to its end."""
    assert run_study(study(seeds), folder, workers=workers, ray=ray, progress=False).results["done"] == len(seeds)


def rate(folder: Path, busy: int) -> float:
    """Points a second, from when all that are busy have a point behind them."""
    times = sorted(path.stat().st_mtime for path in folder.glob("*/points/*.json"))
    return (len(times) - busy) / (times[-1] - times[busy - 1])


def with_workers(workers: int, ray: bool) -> float:
    """Points a second of one study."""
    with tempfile.TemporaryDirectory() as place:
        run(Path(place) / "all", list(range(_POINTS)), workers, ray)
        return rate(Path(place), workers)


def apart() -> float:
    """Points a second of two processes, each with a study of its own in the process itself."""
    context: Any = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["cimphony.sweep.measure"])
    with tempfile.TemporaryDirectory() as place:
        halves = [list(range(half, _POINTS, 2)) for half in (0, 1)]
        both = [
            context.Process(target=run, args=(Path(place) / str(at), half, 0, False)) for at, half in enumerate(halves)
        ]
        for one in both:
            one.start()
        for one in both:
            one.join()
        return rate(Path(place), 2)


def measure(kind: str, turns: int) -> dict[str, Any]:
    """Turns of one worker, two workers and two processes apart."""
    found: dict[str, list[float]] = {"one_worker": [], "two_workers": [], "two_apart": []}
    loads: list[float] = []
    for _ in range(turns):
        found["one_worker"].append(with_workers(1, kind == "ray"))
        found["two_workers"].append(with_workers(2, kind == "ray"))
        found["two_apart"].append(apart())
        loads.append(os.getloadavg()[0])
    middle = {name: statistics.median(rates) for name, rates in found.items()}
    return {
        "speed_up_of_two_workers": middle["two_workers"] / middle["one_worker"],
        "speed_up_of_two_processes_apart": middle["two_apart"] / middle["one_worker"],
        "share_of_what_two_apart_do": middle["two_workers"] / middle["two_apart"],
        "points_per_second": found,
        "load_average": loads,
    }


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description="time the workers of a study")
    arguments.add_argument("--turns", type=int, default=2)
    arguments.add_argument("--ray", action="store_true")
    arguments.add_argument("-o", "--output", type=Path)
    chosen, began = arguments.parse_args(), time()
    kind = "ray" if chosen.ray else "local"
    result = {kind: measure(kind, chosen.turns)}
    if chosen.output and chosen.output.exists():  # local and Ray stand in one file
        result = json.loads(chosen.output.read_text()) | result
    text = json.dumps(result | {"cores": os.cpu_count(), "points": _POINTS, "versions": versions()}, indent=1)
    print(text, f"{time() - began:.0f} s")
    if chosen.output:
        chosen.output.write_text(text + "\n")
