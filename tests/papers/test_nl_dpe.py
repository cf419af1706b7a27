"""NL-DPE's claims: what follows from the public table, what is only conditional, what moves the two ratios."""

import json
from pathlib import Path
from typing import Any

import pytest

from cimphony.chip import load_chip
from cimphony.cost import estimate
from cimphony.papers import nl_dpe, paper_names, reproduce
from cimphony.papers.transformers import BERT_BASE, prefill
from cimphony.record import Record


@pytest.fixture(scope="module")
def record() -> Record:
    return reproduce("nl-dpe")


@pytest.fixture(scope="module")
def rows(record: Record) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for row in record.results["claims"]}


def test_the_core_is_the_public_table(rows: dict[str, dict[str, Any]]) -> None:
    assert "nl-dpe" in paper_names()
    printed = {"crossbars": 1.31, "acam": 43.52, "dac": 2.44, "buffers": 2 * 0.1406, "xor": 0.235}
    assert rows["core-power"]["ours"] == pytest.approx(sum(printed.values()), rel=1e-6)
    areas = (0.011534, 0.041431, 0.0000782, 0.0003542, 0.0003542, 0.0000989)
    assert rows["core-area"]["ours"] == pytest.approx(sum(areas), rel=1e-6)
    for name in ("core-power", "core-area", "acam-power-share", "acam-area-share"):
        assert rows[name]["verdict"] == "reproduced"


def test_the_core_at_32_nm_is_the_table_over_its_own_factors() -> None:
    at_22, at_32 = (nl_dpe.core_power("", of) for of in ("nl-dpe", "nl-dpe-32nm"))
    assert at_32 == pytest.approx(at_22 / 0.61, rel=1e-4)
    at_22, at_32 = (nl_dpe.core_area("", of) for of in ("nl-dpe", "nl-dpe-32nm"))
    assert at_32 == pytest.approx(at_22 / 0.46, rel=1e-4)


def test_chips_of_llama(rows: dict[str, dict[str, Any]]) -> None:
    assert (rows["chips-1b"]["ours"], rows["chips-3b"]["ours"]) == (3, 8)
    assert {rows[name]["status"] for name in ("chips-1b", "chips-3b")} == {"calibrated"}  # tiles are set from them


def test_comparisons_are_conditional_and_what_is_missing_says_why(rows: dict[str, dict[str, Any]]) -> None:
    for name, row in rows.items():
        if name.startswith(("energy-", "speed-", "link-")):
            assert row["status"] == "conditional", name
        if row["ours"] is None:
            assert row["note"], name


def test_a_ratio_by_hand(rows: dict[str, dict[str, Any]]) -> None:
    ours = estimate(prefill(BERT_BASE, 128), load_chip("nl-dpe-32nm"))
    assert rows["energy-gpu-reading"]["ours"] == pytest.approx(0.58e-3 * 400 / ours.energy)
    assert rows["speed-gpu-batch-reading"]["ours"] == pytest.approx(8.18e-3 / 128 / ours.interval)


def test_sensitivity_changes_one_thing_at_a_time(record: Record, rows: dict[str, dict[str, Any]]) -> None:
    moved = {row["assumption"]: row for row in record.results["sensitivity"]}
    first = moved["as described"]
    assert (first["energy_factor"], first["speed_factor"]) == (1, 1)
    assert first["speed"] == pytest.approx(rows["speed-gpu-batch"]["ours"])
    assert moved["GPU at TDP of 350 W"]["energy_factor"] == pytest.approx(0.5)
    assert moved["memory never waited for"]["energy_factor"] == 1
    of_the_chip = [row for name, row in moved.items() if "GPU" not in name and not name.startswith("the same")]
    assert max(of_the_chip, key=lambda row: row["speed_factor"])["assumption"].startswith("memory never waited for")


def test_records_of_studies_fill_claims_of_accuracy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nl_dpe_glue.json").write_text(json.dumps({"results": {"claims": {"naf-loss": 0.4}}}))
    (tmp_path / "nl_dpe_other.json").write_text(json.dumps({"results": {"claims": [{"id": "noise-loss"}]}}))
    monkeypatch.setattr(nl_dpe, "RECORDS", tmp_path)
    found = {one.id: one for one in nl_dpe.claims()}
    measure = found["naf-loss"].measure
    assert measure is not None
    assert (measure(), found["naf-loss"].status) == (0.4, "conditional")
    assert "needs a study" not in found["naf-loss"].note
    assert found["noise-loss"].measure is None
