"""Pipelines: the fixed-point model is within its bound of the function, and the Verilog is the model, bit for bit."""

import shutil

import numpy as np
import pytest

import cimphony as cim
from cimphony import hardware as hw

needs_icarus = pytest.mark.skipif(
    shutil.which("iverilog") is None, reason="needs Icarus Verilog: apt-get install iverilog"
)
needs_yosys = pytest.mark.skipif(shutil.which("yosys") is None, reason="needs yosys: apt-get install yosys")
LATENCY = {"quad": 4, "lut": 3, "taylor": 13, "cordic": 17, "exp": 11, "sinc": 29}


@pytest.mark.parametrize("name", hw.ACTIVATIONS)
def test_error_is_within_the_stated_bound_on_every_input(name: str) -> None:
    make, function, bound = hw.ACTIVATIONS[name]
    pipeline = make()
    x = hw.all_inputs(pipeline)
    assert len(x) == 1 << 16
    error = np.abs(pipeline.evaluate(x) - function(x * 2.0**-hw.INPUT_FRACTION) * 2.0**hw.OUTPUT_FRACTION)
    assert error.max() <= bound
    assert error.max() > bound / 10  # the bound says something
    assert pipeline.latency == LATENCY[name]


@needs_icarus
@pytest.mark.parametrize("name", hw.ACTIVATIONS)
def test_verilog_equals_the_model_on_every_input(name: str) -> None:
    pipeline = hw.ACTIVATIONS[name][0]()
    x = hw.all_inputs(pipeline)
    assert np.array_equal(hw.simulate(pipeline, x), pipeline.evaluate(x))


@needs_icarus
@pytest.mark.parametrize("count", [1, 2, 3])
def test_fewer_registers_compute_the_same(count: int) -> None:
    pipeline, x = hw.quad(), np.arange(-40, 40)
    merged = pipeline.with_stages(count)
    assert merged.latency == count
    assert np.array_equal(hw.simulate(merged, x), pipeline.evaluate(x))


@needs_icarus
def test_every_operation_in_odd_widths_wraps_alike() -> None:
    """A pipeline that computes nothing useful, wider than 16 bits, overflowing on purpose."""
    build = hw.Build("odd", 19)
    build.stage("one")
    product = (build.x * -37).wrap(21)
    shifted = build.x >> build.x.low(2)
    build.stage("two")
    looked = product.low(3).lookup([5, -9, 0, 1, 2, 3, -4, 7])
    mixed = (product - shifted + looked).wrap(9)
    build.stage("three")
    pipeline = build.done((mixed << 2).wrap(10) + (~looked).magnitude())
    x = hw.all_inputs(pipeline, most=5000)
    assert len(x) == 5000
    assert np.array_equal(hw.simulate(pipeline, x), pipeline.evaluate(x))


def test_symmetry_and_period() -> None:
    pipeline = hw.quad()
    x = np.arange(-8191, 8192)
    assert np.array_equal(pipeline.evaluate(-x), -pipeline.evaluate(x))
    assert np.array_equal(pipeline.evaluate(x), pipeline.evaluate((x + 4 * 8192 + 32768) % 65536 - 32768))
    assert pipeline.evaluate([8192, -8192, 0, 16384]).tolist() == [16384, -16384, 0, 0]


def test_resources_by_hand() -> None:
    rows = hw.quad().resources()
    assert [row["registers"] for row in rows] == [14 + 1, 28 + 1, 16 + 1, 16]
    assert [row["multipliers"] for row in rows] == [[], [28], [], []]
    assert hw.lut(8).resources()[1]["rom_bits"] == 256 * 16


def test_acam_holds_the_same_function() -> None:
    pipeline = hw.quad().evaluate(hw.all_inputs(hw.quad()))
    coarse = (pipeline >> 9)[::64]  # results of 6 bits and a sign for inputs of 10 bits
    codes = np.arange(-512, 512)
    rows = {}
    for gray in (True, False):
        memory = hw.acam(coarse, first=-512, gray=gray)
        assert np.array_equal(memory.evaluate(codes), coarse)
        rows[gray] = sum(memory.rows)
    assert rows[True] < rows[False]


@needs_yosys
def test_a_multiplier_is_a_dsp_block_or_logic() -> None:
    with_dsp, without = (hw.synthesise(hw.quad(), target) for target in ("xilinx", "xilinx, no dsp"))
    assert (with_dsp["dsp"], without["dsp"]) == (1, 0)
    assert without["lut"] > 5 * with_dsp["lut"]
    assert hw.synthesise(hw.quad(), "cmos")["transistors"] > 0


def test_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(cim.DataError, match="inputs must fit 16 bits"):
        hw.quad().evaluate(1 << 15)
    with pytest.raises(cim.DataError, match=r"has 4 stages; count = 5 must be 1 to 4"):
        hw.quad().with_stages(5)
    with pytest.raises(cim.DataError, match="'asic' is unknown; choose one of 'xilinx'"):
        hw.synthesise(hw.quad(), "asic")
    with pytest.raises(cim.DataError, match="begin a stage"):
        hw.Build("early", 4).x + 1
    monkeypatch.setenv("PATH", "")
    with pytest.raises(cim.StateError, match="iverilog is not installed"):
        hw.simulate(hw.quad(), [0])
