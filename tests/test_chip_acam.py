"""The ACAM readout and unit as data: what a description may say, and what a mistake is told."""

from typing import Any

import pytest

from cimphony.chip import Acam, Chip, CrossbarUnit, build_chip
from cimphony.errors import ChipError
from cimphony.mapping import cells_per_weight

ACAM: dict[str, Any] = {"kind": "acam", "bits": 8, "cell": {"energy": 1e-15, "area": 1e-12}}


def chip(functions: bool = True, **changes: Any) -> Chip:
    """A small chip read by ACAM, with fields of its crossbar changed."""
    crossbar = {
        "kind": "crossbar",
        "rows": 256,
        "columns": 1024,
        "cell": {"bits": 7, "device": {"kind": "log_linear"}},
        "encoding": {"weights": "differential_residual", "bits": 8},
        "input": {"bits": 8},
        "adc": ACAM,
        **changes,
    }
    units = {"analog": crossbar, "functions": {"kind": "acam", "arrays": "analog"}}
    policy = {"static_matmul": "analog", "dynamic_matmul": "functions", "activation": "functions"}
    if not functions:
        units, policy = {"analog": crossbar}, {"static_matmul": "analog"}
    return build_chip({"name": "small", "node": 22e-9, "units": units, "policy": policy})


def analog(described: Chip) -> CrossbarUnit:
    unit = described.units["analog"]
    assert isinstance(unit, CrossbarUnit)
    return unit


def test_an_acam_takes_the_place_of_the_converter() -> None:
    unit = analog(chip())
    assert unit.converter is None
    assert isinstance(unit.acam, Acam)
    assert cells_per_weight(unit, "mlc") == 4
    assert (
        analog(chip(functions=False, adc={"bits": 6})).acam is None
    )  # a converter without a kind stays an ordinary one


def test_rows_of_an_acam_follow_from_bits_and_code() -> None:
    cells = {(code, bits): Acam(bits=bits, code=code).cells for code in ("gray", "binary") for bits in (6, 8)}
    assert cells == {("gray", 6): 36, ("gray", 8): 132, ("binary", 6): 70, ("binary", 8): 262}
    assert Acam(rows=100, spare_rows=2).cells == 116


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"adc": {**ACAM, "rows": 7}}, ("units.analog.adc: rows = 7", "rows: null")),
        ({"adc": {**ACAM, "bits": 12}}, ("units.analog.adc.bits = 12", "10")),
        ({"adc": {**ACAM, "range": "moving", "quantile": 0.9}}, ("quantile = 0.9", "range: calibrated")),
        ({"adc": {"kind": "flush", "bits": 8}}, ("units.analog.adc.kind = 'flush'", "'acam'")),
        ({"adc": {"bits": 6, "rnge": "level"}}, ("units.analog.adc.rnge is not a field", "'range'")),
        ({"encoding": {"weights": "offset", "bits": 8}}, ("encoding.weights: offset", "differential_residual")),
        (
            {"encoding": {"weights": "differential_residual", "bits": 8, "subtract": "digital"}},
            ("subtract = digital needs weights: differential", "subtract: analog"),
        ),
        ({"cell": {"bits": 2, "device": {"kind": "ideal"}}}, ("cell.bits = {'mlc': 2}", "= 7")),
        (
            {"cell": {"bits": 7, "device": {"kind": "log_linear", "g_min": 2e-4}}},
            ("g_min = 0.0002 S", "g_max = 0.00015 S"),
        ),
        ({"adc": {"bits": 6}}, ("units.functions.arrays = 'analog'", "adc: {kind: acam")),
    ],
)
def test_a_mistake_is_told_with_the_way_out(changes: dict[str, Any], words: tuple[str, ...]) -> None:
    with pytest.raises(ChipError) as error:
        chip(**changes)
    assert all(word in str(error.value) for word in words), str(error.value)


def test_non_idealities_of_thresholds_are_switched_with_those_of_cells() -> None:
    noisy = chip(adc={**ACAM, "thresholds": {"device": {"kind": "log_linear", "stuck": {"off": 0.04}}}})
    quiet = analog(noisy.without("programming", "stuck")).acam
    assert quiet is not None
    assert quiet.thresholds is not None
    device = quiet.thresholds.device
    assert (device.programming, device.stuck) == (None, None)
    assert device.read is not None


def test_without_converters_what_acams_ran_stays_digital() -> None:
    ideal = chip().without("converters")
    assert analog(ideal).adc is None
    assert (list(ideal.units), ideal.policy) == (["analog"], {"static_matmul": "analog"})
