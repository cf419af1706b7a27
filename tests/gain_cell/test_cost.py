"""Cost of gain-cell attention: the published token, counts by hand, scaling, refresh."""

import math

import pytest

import cimphony as cim
from cimphony.cost.gain_cell import on_gain_cell, retention
from cimphony.workload import Operation, Workload
from tests.gain_cell.models import chip, unit


def token(heads: int = 12, context: int = 1024, size: int = 64, m: int = 1) -> Workload:
    common = {"groups": heads, "layer": "h.0.attn", "phase": "decode"}
    return Workload(
        model="one layer",
        operations=[
            Operation(kind="dynamic_matmul", function="query_key", m=m, k=size, n=context, **common),
            Operation(kind="softmax", layer="h.0.attn", phase="decode", elements=heads * context),
            Operation(kind="dynamic_matmul", function="attention_value", m=m, k=context, n=size, **common),
        ],
    )


def test_the_published_token() -> None:
    """1120, 700, 4000 and 330 pJ a head, 65 ns, 0.5 mm2 a head: calibrated, so by construction."""
    report = cim.estimate(token(), cim.load_chip("gain-cell-cmos"))
    energy = {row["component"]: row["energy"] / 12 for row in report.by("component")}
    assert energy == pytest.approx(
        {
            "attention.key_array": 1120e-12,
            "attention.value_array": 700e-12,
            "attention.digital": 4e-9,
            "attention.dac": 330e-12,
        }
    )
    assert report.energy == pytest.approx(12 * 6.15e-9)
    assert report.latency == pytest.approx(65e-9)
    assert report.area == pytest.approx(144 * 0.5e-6)
    assert sum("calibrated" in line for line in report.assumptions) == 3


def test_gpt2_token_by_token() -> None:
    report = cim.estimate(cim.trace("gpt2", prompt=1023, new_tokens=1), cim.load_chip("gain-cell-cmos"))
    decode = next(row for row in report.by("phase") if row["phase"] == "decode")
    assert decode["latency"] == pytest.approx(12 * 65e-9)
    assert decode["energy"] == pytest.approx(144 * 6.15e-9)
    assert any("0.16 of the retention time, the oldest keeps 85.2%; no refresh" in line for line in report.assumptions)


@pytest.mark.parametrize(("window", "first", "tokens"), [(100, 0, 250), (64, 0, 64), (1024, 500, 3), (64, 200, 2)])
def test_columns_and_tiles_by_hand(window: int, first: int, tokens: int) -> None:
    gain_cells = unit(window=window)
    held = [min(at + 1, window) for at in range(first, first + tokens)]
    key, _, value = (on_gain_cell(gain_cells, one) for one in token(3, first + tokens, 32, tokens).operations)
    assert key.counts == {"key_cell": 3 * 32 * sum(held), "write": 3 * 32 * tokens}
    assert value.counts["value_cell"] == 3 * 32 * sum(held)
    assert value.counts["tile"] == 3 * sum(math.ceil(columns / 64) for columns in held)
    assert key.seconds + value.seconds == pytest.approx(tokens * gain_cells.latency)


def test_scaling_with_window_and_head_size() -> None:
    whole, half = (cim.estimate(token(context=at), chip(window=at)) for at in (1024, 512))
    parts = [{row["component"]: row["energy"] for row in report.by("component")} for report in (whole, half)]
    for name in ("key_array", "value_array", "digital"):
        assert parts[0][f"attention.{name}"] == pytest.approx(2 * parts[1][f"attention.{name}"])
    assert parts[0]["attention.dac"] == parts[1]["attention.dac"]
    assert whole.latency - half.latency == pytest.approx(1e-9)  # one level of adders
    small = cim.estimate(token(size=32), cim.load_chip("gain-cell-cmos"))
    assert {row["component"]: row["energy"] for row in small.by("component")}["attention.dac"] == pytest.approx(
        parts[0]["attention.dac"] / 2
    )
    assert cim.estimate(token(heads=24), cim.load_chip("gain-cell-cmos")).latency == pytest.approx(130e-9)


def test_refresh_where_the_window_outlives_the_cells() -> None:
    quick, slow, oxide = unit(), unit(token_period=100e-6), cim.load_chip("gain-cell-osfet").units["attention"]
    held = retention(quick, 12)
    assert (held.refresh, held.life) == (False, pytest.approx(1024 * 0.78e-6))
    assert held.kept == pytest.approx(math.exp(-0.16), rel=0.01)
    late = retention(slow, 12)
    assert late.refresh
    assert late.writes == pytest.approx(100e-6 / 5e-3)
    assert not retention(oxide, 12).refresh  # type: ignore[arg-type]
    assert retention(unit(cell__retention=None), 12).kept == 1.0
    plain, again = (
        {row["component"]: row["energy"] for row in cim.estimate(token(), described).by("component")}
        for described in (chip(), chip(token_period=100e-6))
    )
    assert again["attention.dac"] / plain["attention.dac"] == pytest.approx(1 + 1024 * late.writes)
    assert again["attention.digital"] == plain["attention.digital"]


def test_errors() -> None:
    with pytest.raises(cim.CapacityError, match=r"^chip .*: layer .*: heads of size 128 do not fit arrays of 64 x 64"):
        cim.estimate(token(size=128), cim.load_chip("gain-cell-cmos"))


def test_parts_sum_to_totals_on_the_whole_system() -> None:
    report = cim.estimate(cim.trace("gpt2", prompt=64, new_tokens=8), cim.load_chip("pcm-256-gain-cell"))
    for view in ("component", "layer", "phase", "operation"):
        assert sum(row["energy"] for row in report.by(view)) == pytest.approx(report.energy)
    operations = {row["operation"]: row["energy"] for row in report.by("operation")}
    assert operations["dynamic_matmul"] > 0
    assert operations["static_matmul"] > 0
