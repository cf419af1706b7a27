"""How fast `estimate` is on one core (processor time): design points a second for BERT-Large, and one large model.

    python benchmarks/estimate_speed.py [-o benchmarks/results/estimate_speed.json]

A design point is a different chip each time: converter bits and SLC rate over a grid, descriptions made beforehand.
Making and checking a description with `chip.replace` is timed apart. The first estimate of a workload also groups
its operations; it is timed apart too.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cimphony.chip import Chip, load_chip
from cimphony.cost import estimate
from cimphony.papers.transformers import BERT_LARGE, Shape, prefill
from cimphony.record import versions

LLAMA_70B = Shape("Llama-3-70B", 80, 8192, 28672, 64, 8, gated=True)


def best_of(repeats: int, run: Callable[[], Any]) -> float:
    """Median time of a run [s]."""
    times: list[float] = []
    for _ in range(repeats):
        began = time.process_time()
        run()
        times.append(time.process_time() - began)
    return statistics.median(times)


def design_points(count: int) -> list[Chip]:
    """Different chips: SLC rate and converter bits."""
    base = load_chip("hyflexpim")
    return [
        base.replace({"units.analog.cell.slc_rate": at / count, "units.analog.adc.bits.mlc": 5 + at % 4})
        for at in range(count)
    ]


def measure() -> dict[str, Any]:
    """All figures; times in seconds."""
    began = time.process_time()
    chips = design_points(500)
    making = (time.process_time() - began) / len(chips)
    work, large = prefill(BERT_LARGE, 128), prefill(LLAMA_70B, 1024)
    first = best_of(1, lambda: estimate(large, chips[0]))
    points = best_of(5, lambda: [estimate(work, chip) for chip in chips]) / len(chips)
    return {
        "bert_large_estimate": points,
        "bert_large_points_per_second": 1 / points,
        "chip_replace": making,
        "llama_3_70b_operations": len(large.operations),
        "llama_3_70b_chips": estimate(large, chips[0]).placement.chips,
        "llama_3_70b_first": first,
        "llama_3_70b_estimate": best_of(20, lambda: estimate(large, chips[0])),
        "bert_large_all_views": best_of(20, estimate(work, chips[0]).to_dict),
        "torch_imported": "torch" in sys.modules,
        "versions": versions(),
    }


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description="time estimate")
    arguments.add_argument("-o", "--output", type=Path)
    chosen = arguments.parse_args()
    text = json.dumps(measure(), indent=1)
    print(text)
    if chosen.output:
        chosen.output.parent.mkdir(parents=True, exist_ok=True)
        chosen.output.write_text(text + "\n")
