"""The GPU kernel: equal to the definition on Triton's interpreter, and compiled for Hopper, which finds what the
interpreter cannot."""

import os
import subprocess
import sys

import pytest
import torch

triton = pytest.importorskip("triton")

from cimphony.kernels import planes  # noqa: E402 (needs triton)

INTERPRETED = triton.knobs.runtime.interpret  # TRITON_INTERPRET=1, before Triton is imported

SHAPES = [
    (tokens, rows, columns, block)
    for tokens, rows, columns in [(1, 64, 64), (3, 63, 7), (65, 65, 33), (5, 200, 130), (70, 16, 1)]
    for block in (7, 64, 128, 256)
]
CONVERTERS = [(1, 8, 0, 63), (1, 8, -32, 31), (20644, 22, 0, 63), (17203, 26, -8, 7), (30000, 20, 0, 255)]


@pytest.mark.skipif(INTERPRETED, reason="this is the inner run")
def test_on_the_interpreter() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__, "-k", "equals"]
    ran = subprocess.run(
        command, env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout
    assert "skipped" not in ran.stdout


@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(not INTERPRETED, reason="runs inside test_on_the_interpreter")
@pytest.mark.parametrize(("tokens", "rows", "columns", "block"), SHAPES)
def test_equals_the_definition(tokens: int, rows: int, columns: int, block: int) -> None:
    number = SHAPES.index((tokens, rows, columns, block))
    multiplier, shift, low, high = CONVERTERS[number % len(CONVERTERS)]
    bits = (8, 4, 12)[number % 3]
    generator = torch.Generator().manual_seed(number)
    cells = torch.randint(-20 if low else 0, 330, (2, rows, columns), generator=generator)
    inputs = torch.randint(-(1 << (bits - 1)), 1 << (bits - 1), (tokens, rows), generator=generator)
    factor = torch.randint(-4, 5, (2, -(-rows // block), columns), generator=generator).to(torch.int32)
    expected = torch.zeros(tokens, columns, dtype=torch.int64)
    for b, first in enumerate(range(0, rows, block)):
        for j in range(bits):
            digits = ((inputs[:, first : first + block] >> j) & 1).double()
            for s in range(2):
                sums = (digits @ cells[s, first : first + block].double()).long()
                codes = ((sums * multiplier + (1 << shift >> 1)) >> shift).clamp(low, high)
                expected += codes * (-(1 << j) if j == bits - 1 else 1 << j) * factor[s, b].long()
    made = planes.read(inputs, cells.half(), factor, block, [multiplier, shift, low, high], bits)
    assert torch.equal(made.long(), expected)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(INTERPRETED, reason="nothing is compiled")
def test_compiles_for_hopper() -> None:
    from triton.backends.compiler import GPUTarget

    pointers = {"inputs": "*i8", "cells": "*fp16", "factor": "*i32", "result": "*i32"}
    numbers = ("tokens", "rows", "columns", "blocks", "slices", "multiplier", "half", "low", "high")
    constants = {
        "FIRST_SHIFT": 0, "SHIFT": 8, "BITS": 8, "BLOCK": 64, "BLOCK_TOKENS": 64, "BLOCK_COLUMNS": 64, "BLOCK_ROWS": 64,
    }  # fmt: skip
    signature = {**pointers, **dict.fromkeys(numbers, "i32"), **dict.fromkeys(constants, "constexpr")}
    source = triton.compiler.ASTSource(planes._read_planes, signature, constexprs=constants)
    made = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 4})
    assert "wgmma" in made.asm["ptx"]
    assert made.asm["cubin"][:4] == b"\x7fELF"
