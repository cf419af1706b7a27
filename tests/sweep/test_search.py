"""Random and Optuna searches: reproducible, gone on with, and never twice at one point."""

import pytest

from cimphony.errors import DataError
from cimphony.sweep import read_points, run_study, search
from tests.sweep.studies import plain, study

OPTUNA = {"kind": "optuna", "points": 6, "batch": 2, "seed": 3}


def run(asked, folder):
    return run_study(asked, folder, workers=0, progress=False)


def points(folder):
    return {name: plain(record) for name, record in read_points(folder).items()}


def test_random_points_are_distinct_and_continue(tmp_path):
    four = run(study(search={"kind": "random", "points": 4}), tmp_path)
    assert len(four.results["points"]) == 4
    six = run(study(search={"kind": "random", "points": 6}), tmp_path)
    assert six.results["points"][:4] == four.results["points"]
    assert len(run(study(search={"kind": "random", "points": 50}), tmp_path).results["points"]) == 9


@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_a_search_is_a_function_of_its_study(tmp_path, sampler):
    asked = study(search={**OPTUNA, "sampler": sampler})
    whole = run(asked, tmp_path / "a")
    assert whole.results["done"] == 6
    run(asked, tmp_path / "b")
    assert points(tmp_path / "a") == points(tmp_path / "b")
    for path in sorted((tmp_path / "b" / "points").iterdir())[:3]:  # as if it had been killed
        path.unlink()
    (tmp_path / "b" / "search.journal").write_bytes(b'{"torn')
    (tmp_path / "b" / "search.journal.lock").touch()
    assert run(asked, tmp_path / "b").results == whole.results
    assert points(tmp_path / "a") == points(tmp_path / "b")


def test_a_search_ends_where_everything_is_measured(tmp_path):
    axes = {"units.analog.rows": [32, 64], "fidelity": ["exact"], "units.analog.adc.bits": [7, 999]}
    record = run(study(axes=axes, search={**OPTUNA, "points": 100}), tmp_path)
    assert (record.results["done"], record.results["failed"]) == (2, 2)


def test_ranges_and_words(tmp_path):
    axes = {
        "units.analog.rows": {"low": 16, "high": 256, "whole": True, "log": True},
        "units.analog.cycle": {"low": 1e-9, "high": 1e-7, "log": True},
        "units.analog.schedule.copies": ["one", "ideal"],
    }
    for row in run(study(axes=axes, search=OPTUNA), tmp_path).results["points"]:
        assert isinstance(row["axes"]["units.analog.rows"], int)
        assert 1e-9 <= row["axes"]["units.analog.cycle"] <= 1e-7
        assert row["status"] == "done"


def test_a_shared_database_counts_what_others_measured(tmp_path):
    url = f"sqlite:///{tmp_path / 'shared.sqlite3'}"
    run(study(search={**OPTUNA, "points": 3, "storage": url}), tmp_path / "a")
    found = run(study(search={**OPTUNA, "points": 5, "storage": url}), tmp_path / "b")
    assert len(found.results["points"]) == 2
    assert not points(tmp_path / "a").keys() & points(tmp_path / "b").keys()


def test_what_a_search_needs(tmp_path, monkeypatch):
    with pytest.raises(DataError, match=r"search\.storage 'nonsense' cannot be used"):
        run(study(search={**OPTUNA, "storage": "nonsense"}), tmp_path)

    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(search, "import_module", missing)
    with pytest.raises(DataError, match=r"pip install 'cimphony\[search\]'"):
        run(study(search=OPTUNA), tmp_path / "b")
