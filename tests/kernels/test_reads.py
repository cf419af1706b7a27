"""Law 7: every fast read equals the reference, bit for bit."""

import dataclasses

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cimphony import native
from cimphony.circuits import Cells, reference_read, write
from cimphony.circuits.read import kernel_name, read_codes
from cimphony.kernels import direct, tables
from cimphony.kernels.packed import pack
from tests.conftest import CODINGS, CONVERTERS, DEVICES, ENCODINGS, integers, unit

pytestmark = pytest.mark.skipif(native.library() is None, reason="no compiled kernels")


def cells_of(rows: int, columns: int, *, seed: int = 0, cell_bits: int = 2, **named) -> tuple[Cells, object]:
    crossbar = unit(cell_bits=cell_bits, **named)
    mode = next(iter(crossbar.cell.bits))
    weights = integers(rows, columns, seed=seed).double()
    return write(
        crossbar, mode, weights, seed=5, name="layer", seconds=60.0, largest_sum=30.0 * 2**cell_bits
    ), crossbar.input


def assert_equal(inputs: torch.Tensor, cells: Cells, coding, **where) -> None:
    fast = read_codes(inputs, cells, coding, **where)
    slow = reference_read(inputs, cells, coding, **where)
    assert torch.equal(fast.to(torch.int64), slow)
    assert slow.unique().numel() > 1


@pytest.mark.parametrize("cell_bits", [1, 2, 4])
@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("device", DEVICES)
def test_law_matrix(device: str, encoding: str, cell_bits: int) -> None:
    for converter in ("none",) if encoding == "signed-digits" else CONVERTERS:
        for coding_name in CODINGS:
            cells, coding = cells_of(
                100, 37, device=device, encoding=encoding, cell_bits=cell_bits, converter=converter, coding=coding_name
            )
            inputs = integers(3, 100, seed=1, low=-127)
            assert_equal(inputs, cells, coding, seed=3, first_token=7)


@pytest.mark.parametrize("tokens", [1, 3, 13, 129, 300])
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (63, 7), (65, 33), (1000, 16), (64, 1000)])
@pytest.mark.parametrize("device", ["ideal", "gaussian-multiplicative"])
def test_odd_shapes(tokens: int, rows: int, columns: int, device: str) -> None:
    cells, coding = cells_of(rows, columns, device=device, cell_bits=1, converter="7-bit-full-scale")
    inputs = integers(tokens, rows, seed=tokens, low=-128)
    if rows == 1:
        inputs[0] = -1  # something to read
    slow = reference_read(inputs, cells, coding)
    assert torch.equal(read_codes(inputs, cells, coding).to(torch.int64), slow)


@settings(max_examples=40, deadline=None)
@given(
    tokens=st.integers(1, 40),
    rows=st.integers(1, 200),
    columns=st.integers(1, 70),
    block=st.integers(1, 200),
    bits=st.integers(2, 16),
    adc=st.integers(1, 12),
    shift=st.integers(0, 12),
    low=st.integers(-1, 0),
    largest=st.sampled_from([300, 1200]),
    seed=st.integers(0, 1000),
)
@example(tokens=9, rows=200, columns=40, block=200, bits=8, adc=9, shift=8, low=0, largest=1200, seed=0)
@example(tokens=9, rows=200, columns=40, block=200, bits=8, adc=9, shift=8, low=-1, largest=1200, seed=0)
@example(tokens=1, rows=200, columns=40, block=200, bits=8, adc=9, shift=8, low=-1, largest=1200, seed=0)
def test_tables_on_any_shape(tokens, rows, columns, block, bits, adc, shift, low, largest, seed) -> None:
    conductance = integers(2, rows, columns, seed=seed, low=-20 if low else 0, high=largest).to(torch.int16)
    inverted = integers(2 * -(-rows // block), columns, seed=seed, low=0, high=1).bool().view(2, -1, columns)
    packed = pack(conductance, [1, -2], block, inverted)
    ends = (low << (adc - 1), (1 << adc) - 1)
    code = tables.conversion(packed, 1, shift, *ends)
    inputs = integers(tokens, rows, seed=seed + 1, low=-(1 << (bits - 1)), high=(1 << (bits - 1)) - 1)
    expected = torch.zeros(tokens, columns, dtype=torch.int64)
    for number, first in enumerate(range(0, rows, block)):
        for j in range(bits):
            digits = ((inputs[:, first : first + block] >> j) & 1).double()
            place = -(1 << j) if j == bits - 1 else 1 << j
            for s in range(2):
                sums = (digits @ conductance[s, first : first + block].double()).long()
                codes = ((sums + ((1 << shift) >> 1)) >> shift).clamp(*ends)
                expected += codes * place * (1, -2)[s] * torch.where(inverted[s, number], -1, 1)
    wrapped = expected.to(torch.int32)  # totals are taken modulo 2^32; callers keep them below
    assert code is not None
    for isa in native.available():
        assert torch.equal(tables.read(inputs, packed, code, bits, isa=isa), wrapped)


@pytest.mark.parametrize("isa", native.available())
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("device", ["ideal", "gaussian-multiplicative", "gaussian-additive", "pcm"])
def test_every_instruction_set_and_thread_count(isa, threads: int, device: str, monkeypatch) -> None:
    used = []
    chosen = native.library(isa)
    monkeypatch.setattr(native, "library", lambda name=None: used.append(isa) or chosen)
    for converter in ("6-bit-level", "7-bit-full-scale"):
        for coding_name in CODINGS:
            cells, coding = cells_of(
                130, 70, device=device, encoding="twos-complement-flipped", converter=converter, coding=coding_name
            )
            for tokens in (1, 13):
                inputs = integers(tokens, 130, seed=2)
                slow = reference_read(inputs, cells, coding, seed=1)
                torch.set_num_threads(threads)
                fast = read_codes(inputs, cells, coding, seed=1)
                torch.set_num_threads(1)
                assert torch.equal(fast.to(torch.int64), slow)
    assert used


def test_an_instruction_set_that_is_not_there_is_named() -> None:
    with pytest.raises(ValueError, match="choose one of"):
        native.library("avx1024")  # type: ignore[arg-type]


@pytest.mark.parametrize("tokens", [1, 5])
@pytest.mark.parametrize("coding_name", CODINGS)
def test_outputs_do_not_depend_on_memory(coding_name: str, tokens: int, monkeypatch) -> None:
    cells, coding = cells_of(100, 37, device="gaussian-additive", converter="6-bit-level", coding=coding_name)
    inputs = integers(tokens, 100)
    expected = reference_read(inputs, cells, coding)
    empty = torch.empty

    def poisoned(*shape, **options):
        return empty(*shape, **options).fill_(-77)

    for module in (tables, direct):
        monkeypatch.setattr(module.torch, "empty", poisoned)
    assert torch.equal(read_codes(inputs, cells, coding).to(torch.int64), expected)


@pytest.mark.parametrize("device", ["gaussian-additive", "pcm"])
def test_read_noise_follows_the_token_not_the_batch(device: str) -> None:
    cells, coding = cells_of(100, 37, device=device, converter="7-bit-full-scale")
    inputs = integers(9, 100)
    whole = read_codes(inputs, cells, coding, seed=4, first_token=2)
    parts = [read_codes(inputs[:4], cells, coding, seed=4, first_token=2)]
    parts.append(read_codes(inputs[4:], cells, coding, seed=4, first_token=6))
    assert torch.equal(whole, torch.cat(parts))
    assert not torch.equal(whole, read_codes(inputs, cells, coding, seed=5, first_token=2))


def test_totals_beyond_32_bits_are_split_and_added() -> None:
    cells, coding = cells_of(1000, 5, device="gaussian-multiplicative", cell_bits=4, converter="7-bit-full-scale")
    high = dataclasses.replace(cells.converter, high=2**15 - 1)
    cells = dataclasses.replace(cells, converter=dataclasses.replace(high, multiplier=1, shift=0))
    inputs = integers(3, 1000)
    assert_equal(inputs, cells, coding)
    assert kernel_name(cells) != "reference"


@pytest.mark.parametrize(
    ("named", "kernel"),
    [
        ({"device": "ideal", "converter": "none"}, "collapsed"),
        ({"device": "ideal", "converter": "7-bit-full-scale"}, "tables"),
        ({"device": "gaussian-multiplicative", "converter": "6-bit-level"}, "tables"),
        ({"device": "gaussian-multiplicative", "converter": "none"}, "collapsed"),
        ({"device": "pcm", "converter": "6-bit-level"}, "direct"),
        ({"device": "gaussian-multiplicative", "converter": "6-bit-level", "coding": "pulse-width"}, "direct"),
    ],
)
def test_the_fast_paths_are_taken(named: dict, kernel: str) -> None:
    cells, coding = cells_of(100, 37, **named)
    assert kernel_name(cells, coding) == kernel
