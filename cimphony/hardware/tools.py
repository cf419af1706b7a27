"""Icarus Verilog and yosys, where they are installed: run a pipeline's Verilog, count what it becomes."""

import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from cimphony.errors import DataError, StateError
from cimphony.hardware.pipeline import Integers, Pipeline
from cimphony.hardware.verilog import module, testbench
from cimphony.random import Stream

# what yosys is asked to make
TARGETS: dict[str, str] = {
    "xilinx": "synth_xilinx -family xcup -noiopad -noclkbuf -top {top}; stat",
    "xilinx, no dsp": "synth_xilinx -family xcup -noiopad -noclkbuf -nodsp -nobram -top {top}; stat",
    "cmos": "synth -flatten -top {top}; abc -g cmos2; opt_clean; stat -tech cmos",
}


def _run(program: str, *arguments: str, folder: str) -> str:
    if shutil.which(program) is None:
        raise StateError(f"{program} is not installed; on Debian: apt-get install iverilog yosys")
    done = subprocess.run([program, *arguments], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise DataError(f"{program} failed: {(done.stderr or done.stdout).strip()[-400:]}")
    return done.stdout


def all_inputs(pipeline: Pipeline, most: int = 1 << 16, seed: int = 0) -> Integers:
    """Every input where there are at most `most`; else that many, at random and both ends; up to 32 bits."""
    half = 1 << (pipeline.input_bits - 1)
    if 2 * half <= most:
        return np.arange(-half, half, dtype=np.int64)
    drawn = Stream(seed, pipeline.name, "inputs").words(0, most - 2).astype(np.int64) % (2 * half) - half
    return np.concatenate([[-half, half - 1], drawn])


def simulate(pipeline: Pipeline, inputs: Any) -> Integers:
    """What the Verilog computes, by Icarus Verilog. Raises StateError where it is not installed."""
    words = np.asarray(inputs, np.int64)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "design.v").write_text(module(pipeline) + testbench(pipeline, len(words)), encoding="ascii")
        mask, digits = (1 << pipeline.input_bits) - 1, -(-pipeline.input_bits // 4)
        lines = "\n".join(f"{word & mask:0{digits}x}" for word in words.tolist())
        Path(folder, "inputs.hex").write_text(lines + "\n", encoding="ascii")
        _run("iverilog", "-g2005", "-o", "design", "-s", "testbench", "design.v", folder=folder)
        printed = _run("vvp", "-n", "design", folder=folder)
    return np.array(printed.split(), dtype=np.int64)


def synthesise(pipeline: Pipeline, target: str) -> dict[str, int]:
    """Cells by kind that yosys makes for one of `TARGETS`; for cmos also `transistors`, an estimate by yosys.

    For xilinx, sums stand beside the cells: `lut` (LUT1 to LUT6), `ff`, `dsp`, `carry`, `bram`. Raises StateError
    where yosys is not installed.
    """
    if target not in TARGETS:
        raise DataError(f"target = {target!r} is unknown; choose one of {', '.join(map(repr, TARGETS))}")
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "design.v").write_text(module(pipeline), encoding="ascii")
        script = "read_verilog design.v; " + TARGETS[target].format(top=pipeline.name)
        log = _run("yosys", "-p", script, folder=folder)
    return _counts(log[log.rfind("Number of cells:") :], target)


def _counts(text: str, target: str) -> dict[str, int]:
    cells = {kind: int(number) for kind, number in re.findall(r"^\s{5,}(\$?\w+)\s+(\d+)\s*$", text, re.MULTILINE)}
    if not cells:
        raise DataError("yosys printed no statistics; run it by hand on the Verilog of hardware.module")
    if target == "cmos":
        found = re.search(r"Estimated number of transistors:\s+(\d+)", text)
        return cells | ({"transistors": int(found[1])} if found else {})
    sums = {
        "lut": r"LUT\d",
        "ff": r"FD\w+",
        "dsp": r"DSP\w+",
        "carry": r"CARRY\d",
        "bram": r"RAMB\w+",
        "inverter": "INV",
    }
    return cells | {
        name: sum(n for kind, n in cells.items() if re.fullmatch(form, kind)) for name, form in sums.items()
    }
