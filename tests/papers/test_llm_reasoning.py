"""The claims about reasoning: shares of models, paired by chip, and what is said without a record."""

import pytest

from cimphony.papers import llm_reasoning as paper
from cimphony.papers.claims import measure
from cimphony.record import new_record, write_record

CHIPS = 4
ASKS = ("direct", "thinking", "thinking, examples", "thinking, terse examples")


def model(thinking_high):
    """Scores of a model: everything falls with noise, thinking to what is asked, copies of the first layer win most."""
    cases = {"digital": {f"{ask}: accuracy": 1.0 for ask in ASKS} | {f"{ask}: length": 9.0 for ask in ASKS}}
    for sigma, accuracy in ((paper.LOW, 0.9), (paper.COPIES, 0.7), (paper.HIGH, 0.5)):
        for placed in ("", "shallow", *paper.OTHERS):
            better = 0.2 if placed == "shallow" else 0.1 if placed else 0.0
            values = {"direct": accuracy - 0.05 * (sigma == paper.LOW), "thinking": accuracy}
            if sigma == paper.HIGH:
                values["thinking"] = thinking_high
            rows = {ask: [values.get(ask, accuracy) + better + 0.01 * at for at in range(CHIPS)] for ask in ASKS}
            case = {f"{ask}: accuracy": row for ask, row in rows.items()}
            case |= {f"{ask}: length": [5.0 if "terse" in ask else 9.0] * CHIPS for ask in ASKS}
            cases[f"sigma {sigma}" + (placed and f", {placed}")] = case
    return cases


@pytest.fixture
def folder(tmp_path):
    for kind, high in (("even", 0.2), ("seldom", 0.6)):
        cases = {"0": model(high), "1": model(0.2)}
        record = new_record("study", kind, settings={}, results={"cases": cases}, complete=True)
        write_record(record, tmp_path / f"llm-reasoning-{kind}.json")
    return tmp_path


def test_shares_of_models(folder):
    found = {one.claim.id: one for one in measure(paper.claims(paper.studies(folder)))}
    verdicts = {name: one.verdict for name, one in found.items()}
    assert verdicts.pop("benchmarks") == "not derivable"
    assert verdicts.pop("icl-length") == "by construction"
    assert (found["high-even"].ours, found["high-seldom"].ours) == (1.0, 0.5)
    assert verdicts.pop("high-seldom") == "not reproduced"
    assert verdicts.pop("icl-cost") == "not reproduced"  # as good with terse examples
    assert {*verdicts.values()} == {"reproduced"}


def test_a_study_half_way(folder):
    held = paper.studies(folder)
    for model in held["seldom"]:
        for case in [name for name in model if "," in name]:
            del model[case]
    found = {one.claim.id: one.verdict for one in measure(paper.claims(held))}
    assert (found["copies-thinking"], found["low-seldom"]) == ("reproduced", "reproduced")
    assert paper.figures(held)[-1]["series"][0]["x"] == ["none"]
    del held["even"]
    assert measure(paper.claims(held))[-3].verdict == "not derivable"


def test_figures_are_means(folder):
    drawn = paper.record(folder).results["figures"]
    copies = next(one for one in drawn if "copies, set even" in one["title"])
    direct = next(one for one in copies["series"] if one["name"] == "direct")
    assert direct["y"][0] == pytest.approx(0.7 + 0.015)
    assert max(direct["y"]) == direct["y"][1]


def test_a_difference_within_its_error_is_none():
    assert not paper.beyond_error([1.0, 0.0, 1.0], [0.0, 1.0, 0.0])
    assert paper.beyond_error([1.0, 0.9, 1.1], [0.0, 0.0, 0.0])


def test_without_a_record(tmp_path):
    assert {one.verdict for one in measure(paper.claims(paper.studies(tmp_path)))} == {"not derivable"}
