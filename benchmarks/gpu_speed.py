"""The exact read on a CUDA device against the time that its tensor cores need for the bit planes alone.

    python benchmarks/gpu_speed.py [-o benchmarks/results/gpu_speed.json]

Needs a CUDA device and Triton. Every case is first checked against the reference, bit for bit, on a few tokens. The
floor is 8 bits x slices times the multiply-adds of the layer, at the rate of a large half-float product measured in the
same run; `linear` is the layer's own half-float product.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from read_speed import Case
from torch.nn import functional as F

from cimphony.circuits import kernel_name, reference_read, write
from cimphony.circuits.read import read_codes
from cimphony.record import versions

SHAPES = [(128, 768, 768), (128, 768, 3072), (2048, 768, 3072), (2048, 4096, 4096), (1, 4096, 4096)]


def seconds(run: Callable[[], Any], repeats: int = 20) -> float:
    """Median time on the device."""
    run()
    times = []
    for _ in range(repeats):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        run()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end) * 1e-3)
    return sorted(times)[repeats // 2]


def measure(case: Case, tokens: int, rate: float) -> dict[str, Any]:
    """One row of the record; `rate` is in multiply-adds a second."""
    generator = torch.Generator().manual_seed(0)
    integers = torch.randint(-127, 128, (case.rows, case.columns), generator=generator).double()
    inputs = torch.randint(-127, 128, (tokens, case.rows), generator=generator).cuda()
    unit = case.unit()
    cells = write(unit, next(iter(unit.cell.bits)), integers, seed=0, name="layer", seconds=0.0, largest_sum=None)
    cells = cells.to("cuda")
    few = inputs[:4]
    if not torch.equal(read_codes(few, cells, unit.input).long(), reference_read(few, cells, unit.input)):
        raise SystemExit(f"{case.name}: the kernel differs from the reference; nothing is reported")
    halves, weight = inputs.half(), integers.t().contiguous().half().cuda()
    taken, linear = seconds(lambda: read_codes(inputs, cells, unit.input)), seconds(lambda: F.linear(halves, weight))
    floor = 8 * len(cells.slices) * tokens * case.rows * case.columns / rate
    row = {"case": case.name, "kernel": kernel_name(cells, unit.input), "tokens": tokens, "rows": case.rows}
    row |= {"columns": case.columns, "array_rows": case.block, "seconds": taken, "linear_seconds": linear}
    return row | {"ratio": taken / linear, "share_of_floor": floor / taken}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/results/gpu_speed.json"))
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("no CUDA device here: run this where torch.cuda.is_available() is true")
    large = torch.randn(8192, 8192, device="cuda", dtype=torch.half)
    rate = 8192**3 / seconds(lambda: large @ large)
    record: dict[str, Any] = {"versions": versions(), "device": torch.cuda.get_device_name(), "rate": rate, "rows": []}
    for tokens, *shape in SHAPES:
        for bits, block, adc in ((1, 64, 6), (1, 128, 7), (2, 64, 7), (2, 128, 8)):
            row = measure(Case(f"analog, {8 // bits} slices", *shape, block, bits, 0.05, adc), tokens, rate)
            record["rows"].append(row)
            print(
                f"{row['case']:20} {tokens} x {shape} R {block}: {row['seconds'] * 1e6:.0f} us, "
                f"{row['share_of_floor']:.0%} of the floor, {row['ratio']:.1f} times F.linear in half floats"
            )
    arguments.output.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
