"""HyFlexPIM's accuracy claims against the committed experiments: every verdict, and that the numbers are theirs."""

import statistics
from pathlib import Path

import pytest
from typer.testing import CliRunner

import cimphony as cim
from cimphony.cli import app
from cimphony.errors import DataError
from cimphony.papers import reproduce
from cimphony.papers.hyflexpim_measured import ENCODER, RECORDS, WAYS, decomposed
from cimphony.papers.transformers import prefill

# Verdicts other than "not reproduced"; every one hangs on the noise that its claim names.
HOLD = {
    "brute-force-sst-2", "five-mrpc-released", "five-sts-b-released", "thirty-sst-2-released", "vision-released",
    "decoder-llama-released", "truncation", "recovery-encoder",
}  # fmt: skip
NAMES = ("noise", "way", "slc_rate", "stage", "variant", "fidelity")


@pytest.fixture(scope="module")
def measured() -> cim.Record:
    return reproduce("hyflexpim", "accuracy")


def test_every_verdict(measured: cim.Record) -> None:
    rows = {row["id"]: row for row in measured.results["claims"]}
    assert {name for name, row in rows.items() if row["verdict"] == "reproduced"} == HOLD
    assert {row["status"] for row in rows.values()} == {"trend"}
    assert {row["verdict"] for row in rows.values()} == {"reproduced", "not reproduced"}
    assert all(row["note"] for row in rows.values() if row["verdict"] == "not reproduced")
    assert measured.settings["experiments"]["sst-2"]["task"] == "SST-2"


def test_a_claim_is_the_mean_of_five_chips(measured: cim.Record) -> None:
    points = cim.read_record(RECORDS / "hyflexpim-sst-2.json").results["points"]
    by_rate = {
        rate: [p["value"] for p in points if tuple(p[name] for name in NAMES)
               == ("ber-4.04", "any", rate, "svd, fine-tuned", "", "effective")]
        for rate in (0.0, 1.0)
    }  # fmt: skip
    assert len(by_rate[0.0]) == 5
    (row,) = [row for row in measured.results["claims"] if row["id"] == "brute-force-sst-2"]
    expected = 100 * (statistics.mean(by_rate[1.0]) - statistics.mean(by_rate[0.0]))
    assert row["ours"] == pytest.approx(expected)


def test_the_trade_off_joins_accuracy_and_cost(measured: cim.Record) -> None:
    """More SLC: better accuracy, more energy, time and arrays; all relative to SLC alone."""
    (drawn,) = [figure for figure in measured.results["figures"] if figure["figure"] == "trade-off"]
    assert len(drawn["series"]) == 4
    for line in drawn["series"]:
        assert line["y"][-1] == 1
        assert line["y"][0] < line["y"][3] <= 1


def test_decomposed_work_keeps_the_multiply_adds() -> None:
    work = prefill(ENCODER, 128)
    made = decomposed(work)
    assert 0.99 < made.macs("static_matmul") / work.macs("static_matmul") <= 1
    assert made.macs("dynamic_matmul") == work.macs("dynamic_matmul")


def test_records_of_your_own(tmp_path: Path) -> None:
    """Claims on the tasks that are there; one clear error where none is, and for other claims."""
    (tmp_path / "hyflexpim-sst-2.json").write_bytes((RECORDS / "hyflexpim-sst-2.json").read_bytes())
    found = CliRunner().invoke(
        app, ["reproduce", "hyflexpim", "--claims", "accuracy", "--records", str(tmp_path), "--out", str(tmp_path)]
    )
    assert found.exit_code == 0, found.output
    rows = cim.read_record(tmp_path / "hyflexpim-accuracy.json").results["claims"]
    assert rows
    assert all("SST-2" in row["statement"] for row in rows)
    with pytest.raises(DataError, match=r"no hyflexpim-TASK\.json is there"):
        reproduce("hyflexpim", "accuracy", tmp_path / "nothing")
    with pytest.raises(DataError, match="claims = 'accuracy' is not allowed for bwma"):
        reproduce("bwma", "accuracy")


def test_the_documentation_quotes_the_records() -> None:
    """Every cell of its tables over SLC rates, and the rank correlations."""
    page = (RECORDS.parents[1] / "docs" / "gradient_redistribution.md").read_text(encoding="utf-8")
    for task, rates, digits in (("sst-2", (0.1, 0.3, 0.5), 3), ("sts-b", (0.1, 0.3, 0.5), 3), ("llama", (0.2, 0.5), 0)):
        points = cim.read_record(RECORDS / f"hyflexpim-{task}.json").results["points"]
        for rate in rates:
            cells = [f"{rate:.0%}".replace("%", " %")]
            for way in WAYS:
                key = ("ber-4.04", way, rate, "svd, fine-tuned", "", "effective")
                found = [point["value"] for point in points if tuple(point[name] for name in NAMES) == key]
                assert len(found) == 5
                cells.append(f"{statistics.mean(found):.{digits}f} ± {statistics.stdev(found):.{digits}f}")
            assert f"| {' | '.join(cells)} |" in page
    ranks = cim.read_record(RECORDS / "hyflexpim-ranks-sst-2.json")
    assert ranks.complete
    for score in ("gradient", "sensitivity", "singular_value"):
        cells = [score.replace("_", " ")]
        for effect in ("moved", "loss"):
            values = [row[score] for row in ranks.results["correlation"] if row["effect"] == effect]
            cells.append(f"{statistics.mean(values):.2f} ({min(values):.2f} to {max(values):.2f})")
        assert f"| {' | '.join(cells)} |" in page
