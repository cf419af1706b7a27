"""An ACAM's conversion against a plain GELU on the same tensor: one thread, medians of ratios within one run.

    python benchmarks/acam_speed.py

The tensor is BERT-base's widest activation, 8 texts of 128 tokens by 3072 features; the ACAM holds GELU at 8 bits in
Gray code, as compiled and as one chip manufactured it, one for the layer and one for each column.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from cimphony.chip import Acam, Thresholds
from cimphony.circuits.acam import Table, codes, compile_function, manufacture
from cimphony.record import new_record, write_record

SHAPE = (8 * 128, 3072)
ROUNDS = 9


def seconds(work: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "acam_speed.json")
    out = parser.parse_args().out
    torch.set_num_threads(1)
    x = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
    made = compile_function(F.gelu, (float(x.min()), float(x.max())), 8)
    noisy = manufacture(made, Acam(thresholds=Thresholds()), seed=0, name="layer")
    columns = manufacture(made, Acam(thresholds=Thresholds()), seed=0, name="layer", units=SHAPE[1])
    part = x[:4]
    assert torch.equal(Table(noisy).codes(part), codes(part, noisy))
    assert torch.equal(Table(columns).codes(part), codes(part, columns))
    ways = {
        "exact thresholds": Table(made), "one noisy chip": Table(noisy),
        "one noisy chip, each column its own": Table(columns),
        "bucketize alone": lambda values: torch.bucketize(values, Table(noisy).breaks[0], right=True),
    }  # fmt: skip
    ratios: dict[str, list[float]] = {name: [] for name in ways}
    plain = []
    for _ in range(ROUNDS):
        for name, way in ways.items():
            plain.append(seconds(lambda: F.gelu(x)))
            ratios[name].append(seconds(lambda: way(x)) / plain[-1])  # noqa: B023
    results: dict[str, Any] = {"gelu [ns per value]": statistics.median(plain) / x.numel() * 1e9}
    results["times gelu"] = {name: statistics.median(found) for name, found in ratios.items()}
    settings = {"shape": list(SHAPE), "threads": 1, "rounds": ROUNDS, "bits": 8}
    write_record(new_record("study", "ACAM conversion against GELU", settings=settings, results=results), out)
    print(results)


if __name__ == "__main__":
    main()
