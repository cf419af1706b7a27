"""QuadINR's hardware table: every activation's pipeline, its error, and what yosys makes of it. Needs yosys.

python papers/quad_inr_hardware.py
"""

import argparse
import time

import numpy as np

from cimphony import hardware
from cimphony.record import new_record, write_record

SUMS = ("lut", "ff", "dsp", "carry", "bram", "inverter", "transistors")


def row(name: str) -> dict:
    make, function, bound = hardware.ACTIVATIONS[name]
    pipeline = make()
    x = hardware.all_inputs(pipeline)
    results = pipeline.evaluate(x)
    error = np.abs(results - function(x * 2.0**-hardware.INPUT_FRACTION) * 2.0**hardware.OUTPUT_FRACTION)
    cells = {}
    for target in hardware.TARGETS:
        counts = hardware.synthesise(pipeline, target)
        cells[target] = {kind: counts[kind] for kind in SUMS if kind in counts}
    # in a content-addressable memory: inputs of 10 bits, results of 6 bits and a sign
    coarse = (results >> 9)[::64]
    rows = {code: hardware.acam(coarse, first=-512, gray=code == "gray").rows for code in ("gray", "binary")}
    print(name, pipeline.latency, cells, flush=True)
    return {
        "activation": name, "latency": pipeline.latency, "error_ulp": float(error.max()), "bound_ulp": bound,
        "cells": cells, "stages": pipeline.resources(), "acam_rows": rows,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="papers/results/quad-inr-hardware.json")
    asked, began = parser.parse_args(), time.perf_counter()
    rows = [row(name) for name in hardware.ACTIVATIONS]
    settings = {"targets": dict(hardware.TARGETS), "input_fraction": hardware.INPUT_FRACTION}
    settings |= {"output_fraction": hardware.OUTPUT_FRACTION}
    record = new_record("study", "QuadINR: activations in hardware", settings=settings, results={"rows": rows},
                        duration=time.perf_counter() - began)  # fmt: skip
    print("written:", write_record(record, asked.out))


if __name__ == "__main__":
    main()
