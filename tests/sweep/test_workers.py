"""Workers: whoever measures, the same records; whoever is killed, only its own point is harmed."""

import multiprocessing
import random

import pytest

from cimphony.errors import DataError
from cimphony.sweep import crew, read_points, run_study
from tests.sweep import killed
from tests.sweep.studies import NUMBERS, dies_at_one, exits_at_one, plain, seed_of, study

AXES = {"fidelity": ["effective"], "seed": [0, 1, 2, 3]}
HOW = {"local": {"workers": 2}, "ray": {"workers": 1, "ray": True}}


@pytest.fixture(scope="module")
def ray():
    """A cluster of our own: one core of this machine."""
    found = pytest.importorskip("ray")
    found.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False, configure_logging=False)
    yield found
    found.shutdown()


def points(asked, folder, **options):
    run_study(asked, folder, progress=False, **options)
    return {record.settings["axes"]["seed"]: record for record in read_points(folder).values()}


@pytest.mark.parametrize("kind", HOW)
def test_same_records_and_a_dead_worker_harms_its_own_point_only(tmp_path, kind, request):
    if kind == "ray":
        request.getfixturevalue("ray")
    asked = study(NUMBERS, axes=AXES, measures=["perplexity", "own", "energy"])
    here = points(asked, tmp_path / "here", workers=0, functions={"own": seed_of})
    found = points(asked, tmp_path / kind, functions={"own": dies_at_one}, **HOW[kind])
    assert {seed: plain(found[seed]) for seed in (0, 2, 3)} == {seed: plain(here[seed]) for seed in (0, 2, 3)}
    assert found[1].results["status"] == "failed"
    said = found[1].results["message"]
    assert "the worker died" in said
    assert "most often memory ran out" in said
    assert ("by signal SIGKILL" in said) == (kind == "local")
    again = points(asked, tmp_path / kind, functions={"own": seed_of}, retry_failed=True, workers=0)
    assert {seed: plain(one) for seed, one in again.items()} == {seed: plain(one) for seed, one in here.items()}


def test_an_exit_code_is_told(tmp_path):
    asked = study(NUMBERS, axes=AXES, measures=["own"])
    found = points(asked, tmp_path, workers=1, functions={"own": exits_at_one})
    assert "died with exit code 7" in found[1].results["message"]
    assert sorted(seed for seed, one in found.items() if one.results["status"] == "done") == [0, 2, 3]


def test_killed_at_random_moments(tmp_path):
    """Twenty times, with two workers and on Ray, in `benchmarks/sweep_kills.py`."""
    asked, moments = killed.many(60), random.Random(7)
    killed.go(asked, tmp_path / "whole", workers=0)
    before: dict[str, str] = {}
    for after in sorted(moments.sample(range(50), 3)):
        now = killed.kill(asked, tmp_path / "torn", after, moments.random() / 20, workers=0)
        assert before.items() <= now.items()  # nothing lost, nothing done twice
        before = now
    killed.go(asked, tmp_path / "torn", workers=0)
    assert killed.recorded(tmp_path / "torn") == killed.recorded(tmp_path / "whole")
    assert len(killed.recorded(tmp_path / "torn")) == 60
    assert [path.name for path in (tmp_path / "torn" / "points").iterdir() if path.name.startswith(".")] == []


def test_one_run_in_a_folder(tmp_path):
    asked = killed.many(60)
    process = killed.CONTEXT.Process(target=killed.go, args=(asked, tmp_path), kwargs={"workers": 0})
    process.start()
    while not list(tmp_path.glob("points/*.json")):
        assert process.is_alive()
    with pytest.raises(DataError, match="is in use by another run; wait for it, or choose another with --out"):
        killed.go(asked, tmp_path, workers=0)
    process.kill()
    process.join()
    killed.go(killed.many(60), tmp_path, workers=0)  # the lock went with its holder
    assert len(read_points(tmp_path)) == 60


def test_a_worker_that_cannot_begin_stops_the_study(tmp_path, monkeypatch):
    monkeypatch.setattr(crew, "_context", lambda: multiprocessing.get_context("forkserver"))
    monkeypatch.setattr(crew, "_serve", exits)
    with pytest.raises(DataError, match="a worker ended with exit code 3 before it could begin"):
        run_study(study(), tmp_path, workers=1, progress=False)
    assert read_points(tmp_path) == {}


def exits(*_):
    raise SystemExit(3)
