"""Published macros: fitted points are met, held-out ones predicted, and nothing is both."""

import re
from pathlib import Path

import pytest

from cimphony.chip import load_chip
from cimphony.papers.macros import QUANTITIES, at_voltage, record, summary, validate


@pytest.fixture(scope="module")
def rows():
    return validate()


def test_five_macros_have_fitted_and_held_out_points(rows):
    roles: dict[str, set[str]] = {}
    for row in rows:
        roles.setdefault(row["macro"], set()).add(row["role"])
        assert row["fitted"]
        assert row["missing"]
    assert len(roles) == 5
    assert all({"fitted", "held out"} <= found for found in roles.values())


def test_fitted_points_are_met(rows):
    for row in rows:
        if row["role"] == "fitted":
            assert abs(row["error"]) < 0.005, row


def test_held_out_points_within_15_percent_on_average(rows):
    found = summary(rows)
    assert found["tops_per_watt"]["mean"] < 0.15
    assert found["tops"]["mean"] < 0.15
    assert found["tops_per_mm2"]["mean"] < 0.15
    assert found["tops_per_watt"]["points"] >= 15


def test_what_is_not_modelled_is_shown(rows):
    assert {row["macro"] for row in rows if row["role"] == "not modelled"} == {"macro-jia-65nm", "macro-wan-130nm"}
    assert summary(rows)["tops"]["mean_with_not_modelled"] > summary(rows)["tops"]["mean"]


def test_a_higher_supply_is_faster_and_costs_more():
    chip = load_chip("macro-wang-22nm")
    more = at_voltage(chip, 1.1)
    assert more.units["analog"].cycle < chip.units["analog"].cycle
    ratio = more.units["analog"].components["adc"].energy["mac"] / chip.units["analog"].components["adc"].energy["mac"]
    assert ratio == pytest.approx(1.21)
    back = at_voltage(more, 1.0)
    assert back.units["analog"].cycle == pytest.approx(chip.units["analog"].cycle)


def test_the_record_keeps_rows_and_laws():
    found = record()
    assert len(found.results["rows"]) == len(found.results["claims"]) > 40
    verdicts = {row["id"]: row["verdict"] for row in found.results["claims"]}
    assert verdicts["macro-wang-22nm 1.0 V tops_per_watt"] == "by construction"
    assert verdicts["macro-wang-22nm 0.9 V tops_per_watt"] == "reproduced"
    assert verdicts["macro-jia-65nm 1.2 V tops"] == "not reproduced"
    assert any("square of the supply" in line for line in found.assumptions)


def test_the_page_says_what_comes_out(rows):
    page = (Path(__file__).parents[2] / "docs" / "validation.md").read_text(encoding="utf-8")
    for quantity, found in summary(rows).items():
        name = QUANTITIES[quantity].replace("/", r"\/")
        line = re.search(rf"^\| {name} \| (\d+) \| ([\d.]+) % \| ([\d.]+) % \| ([\d.]+) % \|$", page, re.M)
        assert line is not None, quantity
        written = [float(number) for number in line.groups()]
        ours = [100 * found[key] for key in ("mean", "largest", "mean_with_not_modelled")]
        assert written[0] == found["points"]
        assert written[1:] == pytest.approx(ours, abs=0.051)
