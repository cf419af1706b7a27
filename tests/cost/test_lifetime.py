"""Programming, swapping and endurance against counts by hand."""

import math

import pytest

from cimphony.chip import load_chip
from cimphony.cost.lifetime import endurance, programming, swapping
from cimphony.errors import CapacityError, ChipError
from cimphony.workload import Operation, Workload
from tests.cost.workloads import bert_large, llama_1b, transformer

HYFLEX = load_chip("hyflexpim").replace({"units.analog.schedule.copies": "one"})


def product(k: int, n: int, layer: str = "0.w") -> Workload:
    return Workload(model="one", operations=[Operation(layer=layer, kind="static_matmul", m=1, k=k, n=n)])


def test_programming_one_matrix_by_hand():
    """100 x 40 weights at 5 % SLC: 2 outputs of 8 cells with one pulse, 38 of 4 with eight."""
    found = programming(product(100, 40), HYFLEX)
    slc, mlc = 100 * 2 * 8, 100 * 38 * 4
    assert found.cells == slc + mlc
    assert found.pulses == slc + 8 * mlc
    assert found.energy == pytest.approx(found.pulses * 24.4e-12)
    # 2 x 2 arrays of one module, one after another, 128 cells at once, 50 ns a pulse
    assert found.time == pytest.approx(found.pulses * 50e-9 / 128)


def test_copies_are_programmed_too():
    one, copied = (programming(bert_large(), HYFLEX.replace({"units.analog.schedule.copies": copies}))
                   for copies in ("one", "ideal"))  # fmt: skip
    assert copied.energy / one.energy == pytest.approx(1.887, rel=1e-3)


def test_swapping_keeps_what_fits():
    """17 layers of 64 x 128 8-bit SLC weights, 8 arrays each, on 64 arrays: 56 stay, 80 are written every time."""
    chip = HYFLEX.replace({"units.analog.cell.slc_rate": 1.0, "units.analog.components": {},
                           "units.analog.count": {"array": 64}})  # fmt: skip
    layers = [Operation(layer=f"{at}.w", kind="static_matmul", m=at + 1, k=64, n=128) for at in range(17)]
    work = Workload(model="too large", operations=layers)
    found = swapping(work, chip, chips=1)
    assert found.chips_needed == 3
    assert found.share == pytest.approx(80 / 136)
    assert found.programming.energy == pytest.approx(80 * 64 * 128 * 24.4e-12)
    assert found.years == pytest.approx(1e8 / (80 / 8 * 8 * 10_000) / 365.25)  # 10 rewrites, 8 pulses at worst


def test_what_fits_is_not_swapped():
    found = swapping(product(64, 16), HYFLEX, chips=1)
    assert (found.share, found.programming.energy, found.years) == (0, 0, math.inf)


def test_llama_swapped_on_one_chip_wears_out():
    found = swapping(llama_1b(128), HYFLEX, chips=1)
    assert found.chips_needed == 3
    assert 0.5 < found.share < 0.8
    assert found.years < 1


def test_endurance_by_hand():
    """BERT-Large at 128 tokens: 2 x 128 x 128 x 1024 products of 64 NOR in 8 x 256 x 2^20 cells is one write a cell."""
    found = endurance(bert_large(128), load_chip("hyflexpim"), requests_per_day=10_000)
    assert found.logic_writes == pytest.approx(1.0)
    stored = 8 * (2 * 128 * 1024 + 128 * 1024 + 16 * 128 * 128)  # keys, values, scores and results
    assert found.operand_writes == pytest.approx(stored / (8 * 256 * 2**20))
    assert found.logic_years == pytest.approx(1e8 / 10_000 / 365.25, rel=0.01)
    assert found.operand_years > 1000


def test_years_fall_with_requests():
    slow, fast = (endurance(bert_large(), load_chip("hyflexpim"), requests_per_day=rate) for rate in (100, 1000))
    assert slow.logic_years == pytest.approx(10 * fast.logic_years)


def test_no_stated_endurance_is_no_number():
    found = endurance(transformer(2, 64, 128, 2, 16), load_chip("hyflexpim").replace({"units.digital.endurance": None}))
    assert (found.operand_years, found.logic_years) == (None, None)
    assert found.logic_writes > 0


def test_what_cannot_be_said_is_an_error():
    with pytest.raises(ChipError, match=r"'isaac' says nothing about writing its cells; add cell.write"):
        programming(product(64, 16), load_chip("isaac"))
    with pytest.raises(ChipError, match=r"'isaac' multiplies activations in no memory that wears"):
        endurance(product(64, 16), load_chip("isaac"))
    with pytest.raises(CapacityError, match="chips would do"):
        programming(llama_1b(), HYFLEX, chips=1)
