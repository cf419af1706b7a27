"""The committed study: complete, and it says what the documentation says."""

import re
from pathlib import Path

import pytest

import cimphony as cim

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def study() -> cim.Record:
    return cim.read_record(ROOT / "papers" / "results" / "gain_cell_attention.json")


def test_matching_alone_comes_within_ten_per_cent_of_linear_cells(study: cim.Record) -> None:
    assert study.complete
    for name in ("adaptation alone", "adaptation alone, from fresh scalers"):
        found = study.results[name]
        assert found["iterations"] <= 20
        assert found["over linear"] < 0.1
        assert found["after"] < found["before"]


def test_the_order_of_the_variants_that_holds(study: cim.Record) -> None:
    results = study.results
    softmax, linear, tuned = (
        results["softmax"]["trained as long as the others"], results["linear"], results["adapted, then tuned"]
    )  # fmt: skip
    assert softmax < linear
    assert tuned == pytest.approx(linear, rel=0.02)
    assert results["from scratch"] > 3 * tuned


def test_the_documentation_quotes_the_record(study: cim.Record) -> None:
    page = (ROOT / "docs" / "gain_cell_attention.md").read_text(encoding="utf-8")
    results = study.results
    quoted = [
        results["softmax"]["as it comes"], results["linear"], results["adaptation alone"]["before"],
        results["adaptation alone"]["after"], results["adapted, then tuned"], results["straight from softmax"],
        results["sliding"]["adapted"], *(row["perplexity"] for row in results["levels"] if row["query levels"] == 16),
    ]  # fmt: skip
    numbers = set(re.findall(r"\d+\.\d{3}", page))
    assert {f"{value:.3f}" for value in quoted} <= numbers


def test_the_longer_run_says_the_same() -> None:
    longer = cim.read_record(ROOT / "papers" / "results" / "gain_cell_attention_longer.json")
    assert longer.complete
    assert longer.results["adaptation alone"]["over linear"] < 0.1
    page = (ROOT / "docs" / "gain_cell_attention.md").read_text(encoding="utf-8")
    names = ("linear", "adapted, then tuned", "straight from softmax")
    assert all(f"{longer.results[name]:.3f}" in page for name in names)
