"""The exact read against the digital layer: both called in turn on one core, medians of the ratios of pairs.

    python benchmarks/read_speed.py [-o benchmarks/results/read_speed.json]

Every case is first checked against the reference on a few tokens: no ratio is printed for a wrong result. Times are
the thread's own processor time, so a busy machine disturbs them less than wall time; a neighbour still takes cache
and memory bandwidth. `memory` reads another copy of the weights each time, as a model larger than the cache does.
Takes four minutes.
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
    """The read of one layer."""

    name: str
    rows: int  # of the layer
    columns: int
    block: int  # rows of an array
    cell_bits: int
    noise: float
    adc: int | tuple[int, str]  # bits at one level a code, or (bits, range)
    tokens: tuple[int, ...] = (1, 128)
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


def cases() -> list[Case]:
    """The shapes of the study."""
    found = []
    for shape in ((768, 768), (768, 3072), (3072, 768), (4096, 4096)):
        tokens = (1, 128, 2048) if shape[1] == 768 else (1, 128)
        for block, adc in ((64, 6), (128, 7), (256, 8)):
            found.append(Case("analog, 8 slices of 1 bit", *shape, block, 1, 0.05, adc, tokens))
            found.append(Case("analog, 4 slices of 2 bits", *shape, block, 2, 0.05, adc + 1, tokens))
        if shape == (4096, 4096):
            continue
        found.append(Case("noise-free, lossy converter", *shape, 64, 1, 0.0, (5, "full_scale"), tokens))
        found.append(Case("noise-free, lossy converter", *shape, 128, 1, 0.0, (6, "full_scale"), tokens))
        found.append(Case("provable collapse", *shape, 64, 1, 0.01, 7, tokens))
    found.append(Case("read noise of every sum", 768, 768, 64, 1, 0.05, 6, (128,), (("read", 0.02),)))
    return found


def processor_time(run: Run) -> float:
    """Seconds of this thread."""
    before = time.clock_gettime_ns(time.CLOCK_THREAD_CPUTIME_ID)
    run()
    return (time.clock_gettime_ns(time.CLOCK_THREAD_CPUTIME_ID) - before) * 1e-9


def paired(ours: Run, theirs: Run, calls: tuple[int, int] = (1, 1)) -> dict[str, float]:
    """Both in turn, for about half a second, at least 5 times; the smallest times of a call and the median ratio."""
    ours(), theirs()
    pairs, spent = [], 0.0
    while len(pairs) < 5 or (spent < 0.5 and len(pairs) < 200):
        pairs.append((processor_time(ours) / calls[0], processor_time(theirs) / calls[1]))
        spent += pairs[-1][0] * calls[0] + pairs[-1][1] * calls[1]
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


def measure(case: Case, peak: float) -> list[dict[str, Any]]:
    """A row of the record for every number of tokens."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(case.rows, case.columns, generator=generator)
    integers = (weights / weights.abs().amax(dim=0) * 127).round().double()
    unit, digital = case.unit(), weights.t().contiguous()
    mode = next(iter(unit.cell.bits))
    cells = write(unit, mode, integers, seed=0, name="layer", seconds=0.0, largest_sum=None)
    return [measure_tokens(case, cells, digital, tokens, generator, peak) for tokens in case.tokens]


def measure_tokens(
    case: Case, cells: Cells, digital: Tensor, tokens: int, generator: torch.Generator, peak: float
) -> dict[str, Any]:
    """One row of the record."""
    activations = torch.randn(tokens, case.rows, generator=generator)
    inputs = (activations / activations.abs().amax(dim=1, keepdim=True) * 127).round().to(torch.int64)
    coding = case.unit().input
    if not torch.equal(read_codes(inputs[:2], cells, coding).long(), reference_read(inputs[:2], cells, coding)):
        raise SystemExit(f"{case.name}: the kernel differs from the reference; nothing is reported")

    def linear() -> Tensor:
        return F.linear(activations, digital)

    row: dict[str, Any] = {"case": case.name, "kernel": kernel_name(cells, coding), "tokens": tokens}
    row |= {"rows": case.rows, "columns": case.columns, "array_rows": case.block}
    row |= paired(lambda: read_codes(inputs, cells, coding), linear)
    if tokens == 1:
        row["memory"] = from_memory(cells, inputs, digital, activations)
    if tokens == 128 and case.name.startswith("analog") and case.block == 64 and case.rows == 768:
        row["threads"] = by_threads(cells, inputs)
        if case.columns == 768:
            row["plain_torch"] = paired(lambda: plain_torch(inputs, cells), linear)
            row["instruction_sets"] = by_instruction_set(cells, inputs, linear)
    work = 8 * (8 // case.cell_bits) * tokens * digital.numel()
    return row | {"multiply_adds": work, "share_of_multiply_add_floor": row["seconds"] * peak / work}


def from_memory(cells: Cells, inputs: Tensor, digital: Tensor, activations: Tensor) -> Any:
    """Another copy of the weights each time: 128 MiB of them on both sides."""
    ours = copies(cells, max(2, 2**27 // (9 * digital.numel())))
    theirs = [digital.clone() for _ in range(max(2, 2**27 // (4 * digital.numel())))]
    coding = load_chip("hyflexpim").units["analog"].input
    found = paired(
        lambda: [read_codes(inputs, one, coding) for one in ours],
        lambda: [F.linear(activations, one) for one in theirs],
        (len(ours), len(theirs)),
    )
    (plan,) = {id(one): one for one in cells.memo.values()}.values()
    held = [run.cells.panels for run in plan.runs] + ([] if plan.product is None else [plan.product.weight])
    return found | {"bytes": sum(one.numel() * one.element_size() for one in held)}


def the_run(cells: Cells) -> Any:
    """What the tables read of these cells."""
    return next(iter(cells.memo.values())).runs[0]


def by_instruction_set(cells: Cells, inputs: Tensor, linear: Run) -> Any:
    """Every build that runs here."""
    run = the_run(cells)
    return {
        isa: paired(lambda isa=isa: tables.read(inputs, run.cells, run.code, 8, isa=isa), linear)["ratio"]
        for isa in native.available()
    }


def by_threads(cells: Cells, inputs: Tensor) -> dict[str, float]:
    """One thread and two, in turn: wall and processor time, and the median ratio of wall times."""
    run, times = the_run(cells), []
    for _ in range(60):
        pair = []
        for threads in (1, 2):
            before, used = time.perf_counter(), time.process_time()
            tables.read(inputs, run.cells, run.code, 8, threads=threads)
            pair.append((time.perf_counter() - before, time.process_time() - used))
        times.append(pair)
    found = {
        f"{name}_{threads}": min(pair[threads - 1][which] for pair in times)
        for which, name in enumerate(("wall", "processor"))
        for threads in (1, 2)
    }
    return found | {"speed_up": statistics.median(one[0] / two[0] for one, two in times)}


def machine() -> dict[str, float]:
    """What this core reaches: multiply-adds a second of large products, bytes a second of a large sum."""
    size = 1024
    floats, bytes_, long = torch.randn(size, size), torch.ones(size, size, dtype=torch.int8), torch.ones(2**25)

    def best(run: Run) -> float:
        run()
        return min(processor_time(run) for _ in range(9))

    return {
        "float_multiply_adds": size**3 / best(lambda: floats @ floats),
        "byte_multiply_adds": size**3 / best(lambda: torch.ops.aten._int_mm.default(bytes_, bytes_.t())),
        "memory_bytes": 4 * long.numel() / best(long.sum),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/results/read_speed.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    record: dict[str, Any] = {"versions": versions(), "instruction_sets": native.available(), "machine": machine()}
    record["rows"] = []
    for case in cases():
        for row in measure(case, record["machine"]["float_multiply_adds"]):
            record["rows"].append(row)
            shape = f"{row['tokens']} x {case.rows} x {case.columns}, R {case.block}"
            cold = f", from memory {row['memory']['ratio']:.2f}" if "memory" in row else ""
            print(
                f"{case.name:28} {shape:25} {row['kernel']:10} {row['seconds'] * 1e3:8.2f} ms {row['ratio']:7.2f}{cold}"
            )
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
