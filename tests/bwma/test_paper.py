"""BWMA's claims: what follows here, what does not, and costs that only grow with the bits."""

from pathlib import Path

from cimphony.papers import bwma, paper_names, reproduce
from cimphony.record import read_record


def test_claims_and_figures() -> None:
    assert "bwma" in paper_names()
    record = reproduce("bwma")
    rows = {row["id"]: row for row in record.results["claims"]}
    assert rows["closed-form"]["ours"] <= 1
    assert rows["closed-form-mean"]["ours"] < 0.95  # a mean of half a deviation is worth a shift
    assert {rows[name]["verdict"] for name in ("cifar-low", "cifar-high", "imagenet-low")} == {"not derivable"}
    assert rows["knee"]["ours"] == 3
    assert rows["knee"]["verdict"] == "not reproduced"
    energy = record.results["figures"][0]["series"]
    assert [one["name"] for one in energy] == list(bwma.CHIPS)
    assert all(a < b for one in energy for a, b in zip(one["y"], one["y"][1:], strict=False))


def test_the_accuracies_are_those_of_the_committed_study() -> None:
    study = read_record(Path(__file__).parents[2] / "papers/results/bwma-cifar10.json").results["rows"]
    others = {"rule": "two_means", "grain": "channel", "form": "tanh"}
    for bits, measured in bwma.STUDY.items():
        (row,) = (one for one in study if one["variant"] == {"bits": bits} | others)
        assert measured == tuple(round(100 * value, 2) for value in row["accuracy"])


def test_latency_doubles_from_4_to_8_bits_energy_less() -> None:
    for chip in bwma.CHIPS:
        assert abs(bwma.relative_cost(chip, "latency") - 2) < 1e-9
        assert 1 < bwma.relative_cost(chip, "energy") < 2
