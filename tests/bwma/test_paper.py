"""BWMA's claims: what follows here, what does not, and costs that only grow with the bits."""

from cimphony.papers import bwma, paper_names, reproduce


def test_claims_and_figures() -> None:
    assert "bwma" in paper_names()
    record = reproduce("bwma")
    rows = {row["id"]: row for row in record.results["claims"]}
    assert rows["closed-form"]["ours"] <= 1
    assert rows["closed-form-mean"]["ours"] < 0.95  # a mean of half a deviation is worth a shift
    assert {rows[name]["verdict"] for name in ("cifar-low", "cifar-high", "imagenet-low")} == {"not derivable"}
    assert rows["knee"]["ours"] == 4
    energy = record.results["figures"][0]["series"]
    assert [one["name"] for one in energy] == list(bwma.CHIPS)
    assert all(a < b for one in energy for a, b in zip(one["y"], one["y"][1:], strict=False))


def test_latency_doubles_from_4_to_8_bits_energy_less() -> None:
    for chip in bwma.CHIPS:
        assert abs(bwma.relative_cost(chip, "latency") - 2) < 1e-9
        assert 1 < bwma.relative_cost(chip, "energy") < 2
