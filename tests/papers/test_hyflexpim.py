"""HyFlexPIM's claims: what reproduces, what does not, and that nothing was tuned until it did."""

import json
from pathlib import Path

import pytest

from cimphony.chip import load_chip
from cimphony.cost import estimate
from cimphony.errors import DataError
from cimphony.papers import paper_names, reproduce
from cimphony.papers.claims import Claim, Verdict, rms_error
from cimphony.papers.hyflexpim import HEADLINE, record
from cimphony.record import read_record, write_record
from tests.cost.workloads import transformer

PAGE = (Path(__file__).parents[2] / "docs" / "papers" / "hyflexpim.md").read_text(encoding="utf-8")

# Verdicts other than "reproduced"; a change of the model that moves one must be seen and explained.
OTHERS = {
    "overhead": "not derivable", "memory": "not derivable", "speed-sprint-10.6": "not derivable",
    "speed-sprint-46.0": "not derivable", "speed-sprint-10.1": "not derivable", "speed-sprint-44.0": "not derivable",
    "energy-sprint": "by construction", "energy-nmp": "by construction", "energy-non-pim": "by construction",
    "energy-abstract": "close", "sprint-gpt2": "close", "non-pim-gpt2": "close", "eight-chips": "close",
    "adc-slc": "not reproduced", "adc-mlc": "not reproduced", "nmp-bert": "not reproduced",
    "nmp-gpt2": "not reproduced", "float-gpt2": "not reproduced", "speed-20": "not reproduced",
    "llama-pu": "not reproduced", "long": "not reproduced", "life-logic-long": "not reproduced",
}  # fmt: skip


@pytest.fixture(scope="module")
def published():
    return reproduce("hyflexpim")


def test_every_verdict(published):
    found = {row["id"]: row["verdict"] for row in published.results["claims"]}
    assert {name: verdict for name, verdict in found.items() if verdict != "reproduced"} == OTHERS
    assert len(found) == len(published.results["claims"]) > 50


def test_nine_headline_ratios_without_a_fitted_number(published):
    """1.24, 1.23, 1.86, 1.10, 1.9 and, given the linear baselines, 4.94, 6.15, 4.69, 5.82: 5 % rms."""
    values = {row["id"]: row["paper"] for row in published.results["claims"]}
    assert sorted(values[name] for name in HEADLINE) == [1.1, 1.23, 1.24, 1.86, 1.9, 4.69, 4.94, 5.82, 6.15]
    assert published.results["headline_rms"] < 0.05


def test_each_doubtful_claim_says_why(published):
    for row in published.results["claims"]:
        if row["verdict"] != "reproduced":
            assert row["note"], row["id"]


def test_calibrated_chips_say_so():
    for name in ("sprint", "nmp-transpim", "non-pim"):
        assert any("calibrated" in note for note in load_chip(name).notes)


def test_figures_are_redrawn_beside_the_published_points(published):
    figures = published.results["figures"]
    assert {figure["figure"] for figure in figures} == {"14", "15", "15 b", "16", "17"}
    for figure in figures:
        assert all(len(line["x"]) == len(line["y"]) > 0 for line in figure["series"])
    parts = next(figure for figure in figures if figure["figure"] == "15 b")["series"]
    for values in zip(*(line["y"] for line in parts), strict=True):
        assert sum(values) == pytest.approx(100)


def test_the_record_is_a_record(published, tmp_path: Path):
    assert (
        read_record(write_record(published, tmp_path / "claims.json")).results
        == json.loads(published.model_dump_json())["results"]
    )


def test_corrected_chip_beside_it(published):
    """Scaled converters double the power of a module, per-array parts and real cells make it six times as large."""
    ours = {row["id"]: row["beside"]["hyflexpim-corrected"] for row in published.results["claims"]}
    assert ours == {row["id"]: row["ours"] for row in record("hyflexpim-corrected").results["claims"]}
    before = {row["id"]: row["ours"] for row in published.results["claims"]}
    assert 1.9 < ours["analog-power"] / before["analog-power"] < 2.3
    assert 5 < ours["analog-area"] / before["analog-area"] < 7
    assert (ours["adc-slc"], ours["adc-mlc"]) == (6, 7)  # lossless with inverted columns
    assert ours["speed-max"] == 1  # whole copies only: half the arrays are no use to a layer
    assert ours["energy-5"] < before["energy-5"]


@pytest.mark.parametrize(
    ("chip", "batch", "millijoules"),
    [("hyflexpim", 1, 50), ("hyflexpim-corrected", 1, 100), ("gpu-h100", 1, 103), ("gpu-h100", 8, 58)],
)
def test_the_page_beside_a_gpu(chip: str, batch: int, millijoules: float):
    report = estimate(transformer(24, 1024, 4096, 16, 128, batch=batch), load_chip(chip))
    assert report.energy / batch * 1e3 == pytest.approx(millijoules, abs=0.51)
    assert f"{millijoules} mJ" in PAGE


def test_unknown_paper():
    assert "hyflexpim" in paper_names()
    with pytest.raises(DataError, match=r"paper 'isaac2' is not here; choose one of .*hyflexpim"):
        reproduce("isaac2")


def claim(**fields: object) -> Claim:
    return Claim(**{"id": "a", "where": "1", "statement": "s", "value": 2.0, "unit": "x", "status": "derived"} | fields)


@pytest.mark.parametrize(
    ("ours", "fields", "verdict"),
    [
        (2.09, {}, "reproduced"),
        (2.2, {}, "close"),
        (1.6, {}, "not reproduced"),
        (3.0, {"relation": "at least"}, "reproduced"),
        (1.8, {"relation": "at least"}, "not reproduced"),
        (1.0, {"relation": "at most"}, "reproduced"),
        (2.0, {"status": "calibrated"}, "by construction"),
        (2.5, {"status": "calibrated"}, "not reproduced"),
        (None, {"status": "not derivable"}, "not derivable"),
        (2.01, {"tolerance": 0.0}, "not reproduced"),
    ],
)
def test_verdicts(ours: float | None, fields: dict[str, object], verdict: str):
    assert Verdict(claim(measure=None, **fields), ours).verdict == verdict


def test_rms_of_ratios():
    verdicts = [Verdict(claim(measure=None), ours) for ours in (2.2, 2 / 1.1, None)]
    assert rms_error(verdicts) == pytest.approx(0.0953, abs=1e-4)
    assert rms_error([]) == 0
