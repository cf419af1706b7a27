"""The exact read against the digital layer: processor time on one core, both called in turn, ratios of each pair.

    python benchmarks/read_speed.py [--tokens 1 128 2048] [--all] [-o benchmarks/results/read_speed.json]

Every case is first checked against the reference on a few tokens: no ratio is printed for a wrong result. Rows of
token counts that are not asked for stay in the record; `--all` adds larger shapes. Times are the thread's own
processor time, so a busy machine disturbs them less than wall time; a neighbour still takes cache and memory
bandwidth. `cold` reads another copy of the weights each time, as a model larger than the cache does.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from cimphony import native
from cimphony.chip import CrossbarUnit, load_chip
from cimphony.circuits import Cells, kernel_name, reference_read, write
from cimphony.circuits.read import read_codes
from cimphony.kernels import tables
from cimphony.record import versions

Run = Callable[[], Any]


@dataclass(frozen=True)
class Case:
    """A read of one layer."""

    name: str
    tokens: int
    rows: int  # of the layer
    columns: int
    block: int  # rows of an array
    cell_bits: int
    noise: float
    adc: int | tuple[int, str]  # bits at one level a code, or (bits, range)
    extra: tuple[tuple[str, Any], ...] = ()

    def unit(self) -> CrossbarUnit:
        """The crossbar."""
        bits, policy = self.adc if isinstance(self.adc, tuple) else (self.adc, "level")
        given = {
            "units.analog.rows": self.block,
            "units.analog.cell": {
                "bits": self.cell_bits,
                "device": {"kind": "gaussian", "multiplicative": self.noise, **dict(self.extra)},
            },
            "units.analog.encoding": {"weights": "twos_complement", "bits": 8},
            "units.analog.input": {"bits": 8, "coding": "bit_serial"},
            "units.analog.adc": {"bits": bits, "range": policy},
        }
        unit = load_chip("hyflexpim").replace(given).units["analog"]
        assert isinstance(unit, CrossbarUnit)
        return unit


def cases(everything: bool) -> list[Case]:
    """The shapes of the study."""
    shapes = [(128, 768, 768), (128, 768, 3072), (128, 3072, 768), (1, 768, 768), (1, 768, 3072), (2048, 768, 768)]
    if everything:
        shapes += [(128, 4096, 4096), (1, 4096, 4096)]
    found = []
    for shape in shapes:
        for block, adc in ((64, 6), (128, 7), (256, 8)):
            found.append(Case("analog, 8 slices of 1 bit", *shape, block, 1, 0.05, adc))
            found.append(Case("analog, 4 slices of 2 bits", *shape, block, 2, 0.05, adc + 1))
        found.append(Case("noise-free, lossy converter", *shape, 64, 1, 0.0, (5, "full_scale")))
        found.append(Case("noise-free, lossy converter", *shape, 128, 1, 0.0, (6, "full_scale")))
        found.append(Case("provable collapse", *shape, 64, 1, 0.01, 7))
    found.append(Case("read noise of every sum", 128, 768, 768, 64, 1, 0.05, 6, (("read", 0.02),)))
    return found


def processor_time(run: Run) -> float:
    """Seconds of this thread."""
    before = time.clock_gettime_ns(time.CLOCK_THREAD_CPUTIME_ID)
    run()
    return (time.clock_gettime_ns(time.CLOCK_THREAD_CPUTIME_ID) - before) * 1e-9


def paired(ours: Run, theirs: Run, repeats: int) -> dict[str, float]:
    """Both in turn; the smallest times and the median of the ratios."""
    ours(), theirs()
    pairs = [(processor_time(ours), processor_time(theirs)) for _ in range(repeats)]
    return {
        "seconds": min(pair[0] for pair in pairs),
        "linear_seconds": min(pair[1] for pair in pairs),
        "ratio": statistics.median(a / b for a, b in pairs),
    }


def plain_torch(inputs: Tensor, cells: Cells) -> Tensor:
    """The same read as one would write it in torch: all bits as rows of one product for each block and slice."""
    tokens, step = inputs.shape[0], cells.rows_per_block
    planes = torch.stack([(inputs >> j) & 1 for j in range(8)]).to(torch.float32)  # [bit, token, row]
    places = torch.tensor([1.0, 2, 4, 8, 16, 32, 64, -128]).view(8, 1, 1)
    total = torch.zeros(tokens, cells.conductance.shape[2])
    one = cells.converter
    for first in range(0, inputs.shape[1], step):
        bits = planes[:, :, first : first + step].reshape(8 * tokens, -1)
        for s, held in enumerate(cells.slices):
            sums = bits @ cells.conductance[s, first : first + step].to(torch.float32)
            codes = torch.floor(sums * (one.multiplier * 2.0**-one.shift) + 0.5).clamp_(one.low, one.high)
            total += (codes.view(8, tokens, -1) * places).sum(dim=0) * held.place
    return total


def copies(cells: Cells, count: int) -> list[Cells]:
    """The same cells elsewhere in memory, laid out for the kernel."""
    found = [replace(cells) for _ in range(count)]
    for one in found:
        kernel_name(one)
    return found


def measure(case: Case, repeats: int) -> dict[str, Any]:
    """One row of the record."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(case.rows, case.columns, generator=generator)
    integers = (weights / weights.abs().amax(dim=0) * 127).round().double()
    activations = torch.randn(case.tokens, case.rows, generator=generator)
    inputs = (activations / activations.abs().amax(dim=1, keepdim=True) * 127).round().to(torch.int64)
    unit = case.unit()
    mode = next(iter(unit.cell.bits))
    cells = write(unit, mode, integers, seed=0, name="layer", seconds=0.0, largest_sum=None)
    few = inputs[:2]
    right = torch.equal(read_codes(few, cells, unit.input).long(), reference_read(few, cells, unit.input))
    if not right:
        raise SystemExit(f"{case.name}: the kernel differs from the reference; nothing is reported")
    digital = weights.t().contiguous()
    row: dict[str, Any] = {"case": case.name, "kernel": kernel_name(cells, unit.input), **shape_of(case)}
    row |= paired(lambda: read_codes(inputs, cells, unit.input), lambda: F.linear(activations, digital), repeats)
    if case.tokens == 1:
        row["cold"] = cold(case, cells, inputs, digital, activations, unit)
    if case.name.startswith("analog") and case.tokens == 128 and case.columns <= 768 and case.block == 64:
        row["plain_torch"] = paired(lambda: plain_torch(inputs, cells), lambda: F.linear(activations, digital), 3)
        row["instruction_sets"] = by_instruction_set(cells, inputs, activations, digital, repeats)
        row["threads"] = by_threads(cells, inputs)
    return row


def cold(case: Case, cells: Cells, inputs: Tensor, digital: Tensor, activations: Tensor, unit: CrossbarUnit) -> Any:
    """Another copy of the weights each time: 128 MiB of them on both sides."""
    ours = copies(cells, max(2, 2**27 // (9 * case.rows * case.columns)))
    theirs = [digital.clone() for _ in range(max(2, 2**27 // (4 * digital.numel())))]
    ratios, times = [], []
    for _ in range(5):
        mine = processor_time(lambda: [read_codes(inputs, one, unit.input) for one in ours]) / len(ours)
        other = processor_time(lambda: [F.linear(activations, one) for one in theirs]) / len(theirs)
        ratios.append(mine / other)
        times.append((mine, other))
    return {"seconds": min(times)[0], "linear_seconds": min(times)[1], "ratio": statistics.median(ratios)}


def by_instruction_set(cells: Cells, inputs: Tensor, activations: Tensor, digital: Tensor, repeats: int) -> Any:
    """Every build that runs here."""
    run = next(iter(cells.memo.values())).runs[0]
    return {
        isa: paired(
            lambda isa=isa: tables.read(inputs, run.cells, run.code, 8, isa=isa),
            lambda: F.linear(activations, digital),
            repeats,
        )["ratio"]
        for isa in native.available()
    }


def by_threads(cells: Cells, inputs: Tensor) -> dict[str, float]:
    """Wall time and processor time with one thread and with two."""
    run = next(iter(cells.memo.values())).runs[0]
    found: dict[str, float] = {}
    for threads in (1, 2):
        wall, busy = [], []
        for _ in range(60):
            before, used = time.perf_counter(), time.process_time()
            tables.read(inputs, run.cells, run.code, 8, threads=threads)
            wall.append(time.perf_counter() - before)
            busy.append(time.process_time() - used)
        found |= {f"wall_{threads}": min(wall), f"processor_{threads}": min(busy)}
    return found | {"speed_up": found["wall_1"] / found["wall_2"]}


def peak() -> float:
    """Multiply-adds a second of a large fp32 product on this core."""
    a, b = torch.randn(1024, 1024), torch.randn(1024, 1024)
    a @ b
    return 1024**3 / min(processor_time(lambda: a @ b) for _ in range(9))


def shape_of(case: Case) -> dict[str, int]:
    """What was read."""
    return {"tokens": case.tokens, "rows": case.rows, "columns": case.columns, "array_rows": case.block}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true", help="the larger shapes too")
    parser.add_argument("--tokens", type=int, nargs="+", default=[1, 128, 2048])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/results/read_speed.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    record: dict[str, Any] = {"versions": versions(), "instruction_sets": native.available()}
    record["peak_multiply_adds"] = peak()
    before = json.loads(arguments.output.read_text())["rows"] if arguments.output.exists() else []
    record["rows"] = [row for row in before if row["tokens"] not in arguments.tokens]
    for case in cases(arguments.all):
        if case.tokens not in arguments.tokens:
            continue
        row = measure(case, arguments.repeats if case.tokens > 1 else 20 * arguments.repeats)
        slices = 8 // case.cell_bits
        floor = 8 * slices * case.tokens * case.rows * case.columns / record["peak_multiply_adds"]
        row["share_of_multiply_add_floor"] = row["seconds"] / floor
        record["rows"].append(row)
        shape = f"{case.tokens} x {case.rows} x {case.columns}, R {case.block}"
        colder = f", cold {row['cold']['ratio']:.2f}" if "cold" in row else ""
        print(
            f"{case.name:28} {shape:28} {row['kernel']:10} {row['seconds'] * 1e3:8.2f} ms {row['ratio']:7.2f}{colder}"
        )
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
