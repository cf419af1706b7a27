"""Points measured in this process: what they are, what they share, what becomes of those that fail."""

import json
import os

import pytest

from cimphony.chip import load_chip
from cimphony.cost import estimate
from cimphony.errors import DataError
from cimphony.evaluate import calibration_windows, evaluate_chips, load_model, load_text, perplexity
from cimphony.nn.trace import trace
from cimphony.record import read_record
from cimphony.sweep import measure, read_points, run_study
from tests.sweep.studies import NUMBERS, fails_at_one, plain, seed_of, study


def run(asked, folder, **options):
    return run_study(asked, folder, **{"workers": 0, "progress": False, **options})


def test_a_point_is_what_the_verbs_give(tmp_path):
    asked = study(NUMBERS, measures=["perplexity", "yield", "energy", "chips"])
    record = run(asked, tmp_path)
    model, tokenizer = load_model("demo")
    tokens = load_text("demo", tokenizer)
    chip = load_chip("hyflexpim").replace({"units.analog.fidelity": "effective"})
    expected = evaluate_chips(
        model,
        lambda one: perplexity(one, tokens, window=256, max_tokens=32),
        chip,
        seeds=[0, 1],
        ages=[0.0, 86_400.0],
        calibration=calibration_windows(tokens, 256, 32)[0],
        exclude=NUMBERS["exclude"],
        progress=False,
    ).results
    assert record.complete
    assert record.kind == "study"
    for row, group in zip(record.results["points"], expected["groups"], strict=True):
        assert row["measures"]["perplexity"] == group["mean"]
        assert row["spread"]["perplexity"]["sd"] == pytest.approx(group["sd"])
        assert row["measures"]["energy"] == estimate(trace("demo", prompt=128), chip).energy
        point = read_record(tmp_path / "points" / f"{row['digest']}.json")
        assert point.results["digital"]["perplexity"] == expected["digital"]
        values = [one["perplexity"] for one in point.results["per_seed"]]
        good = [value <= 1.05 * expected["digital"] for value in values]
        assert row["measures"]["yield"] == sum(good) / 2
        assert point.chip == json.loads(chip.model_dump_json())


def test_points_share_what_they_can(tmp_path, monkeypatch):
    calls = dict.fromkeys(("load_model", "convert_", "trace", "program_"), 0)
    for name in calls:
        original = getattr(measure, name)

        def counted(*arguments, _name=name, _original=original, **options):
            calls[_name] += 1
            return _original(*arguments, **options)

        monkeypatch.setattr(measure, name, counted)
    axes = {"seed": [0, 1], "units.analog.rows": [64, 128], "age": [0, 9], "fidelity": ["effective"]}
    run(study(NUMBERS, axes=axes, measures=["perplexity", "energy"]), tmp_path)
    assert calls == {"load_model": 1, "convert_": 2, "trace": 1, "program_": 8}


def test_nothing_is_measured_twice_and_more_can_be_added(tmp_path, monkeypatch):
    run(study(), tmp_path)
    first = {name: plain(record) for name, record in read_points(tmp_path).items()}
    times = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "points").iterdir()}
    more = study(axes={"units.analog.rows": [32, 64, 128, 256], "units.analog.adc.bits": [6, 7, 8]})
    assert len(run(more, tmp_path).results["points"]) == 12
    assert times.items() <= {path.name: path.stat().st_mtime_ns for path in (tmp_path / "points").iterdir()}.items()
    assert first.items() <= {name: plain(record) for name, record in read_points(tmp_path).items()}.items()
    monkeypatch.setattr(measure, "estimate", None)
    assert run(more, tmp_path).results["done"] == 12


def test_failed_points_say_why_and_are_tried_again_when_asked(tmp_path):
    asked = study(NUMBERS, axes={"seed": [0, 1, 2], "fidelity": ["effective"]}, measures=["own"])
    record = run(asked, tmp_path, functions={"own": fails_at_one})
    assert [row["status"] for row in record.results["points"]] == ["done", "failed", "done"]
    assert record.results["points"][1]["message"] == "MemoryError: no more"
    assert run(asked, tmp_path, functions={"own": seed_of}).results["failed"] == 1
    retried = run(asked, tmp_path, functions={"own": seed_of}, retry_failed=True)
    assert [row["measures"] for row in retried.results["points"]] == [{"own": 1}, {"own": 2}, {"own": 3}]


def test_a_point_that_cannot_be_leaves_the_others(tmp_path):
    record = run(study(axes={"units.analog.adc.bits": [6, 99], "units.analog.rows": [64]}), tmp_path)
    assert [row["status"] for row in record.results["points"]] == ["done", "failed"]
    assert "less than or equal to 16" in record.results["points"][1]["message"]


def test_sequential_stopping(tmp_path):
    population = {"seeds": 3, "most": 40, "precision": 0.2}
    asked = study(NUMBERS, axes={"fidelity": ["effective"]}, measures={"own": "min"}, population=population)
    spread = run(asked, tmp_path, functions={"own": seed_of}).results["points"][0]["spread"]["own"]
    assert 3 < spread["chips"] < 40
    low, high = spread["interval"]
    assert (high - low) / 2 <= 0.2 * spread["mean"]
    same = study(NUMBERS, axes={"fidelity": ["effective"]}, measures={"own": "min"}, population=population, name="same")
    assert run(same, tmp_path / "b", functions={"own": _one}).results["points"][0]["spread"]["own"]["chips"] == 3


def _one(model):
    return 1.0


def test_a_digital_chip_has_the_models_own_values(tmp_path):
    asked = study(NUMBERS, axes={"chip": ["gpu-h100", "ideal"]}, measures=["perplexity", "energy", "costed"])
    points = run(asked, tmp_path).results["points"]
    assert "computes digitally" in points[0]["message"]
    assert points[0]["measures"]["costed"] == 1 > points[1]["measures"]["costed"] > 0
    assert points[0]["measures"]["perplexity"] == pytest.approx(points[1]["measures"]["perplexity"], rel=0.01)


def test_the_shares_of_cells_that_a_method_gives(tmp_path):
    axes = {"method.slc_rate": [0.0, 1.0], "method.rank": [None, "hard"]}
    noisy = {"base": "hyflexpim", "units": {"analog": {"cell": {"device": {"mlc": {"multiplicative": 0.5}}}}}}
    asked = study(NUMBERS, chip=noisy, axes=axes, measures=["perplexity", "energy"], population={"seeds": 1})
    points = run(asked, tmp_path).results["points"]
    assert [row["message"] for row in points] == [""] * 4
    all_mlc, decomposed, all_slc, _ = (row["measures"] for row in points)
    assert all_slc["perplexity"] < all_mlc["perplexity"]
    assert all_slc["energy"] != all_mlc["energy"] != decomposed["energy"]


def test_one_clear_message(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        run(study(model="nowhere/at/all"), tmp_path / "model")
    run(study(axes={"units.analog.rows": [64]}), tmp_path / "old")
    with pytest.raises(DataError, match="holds another study: workload was"):
        run(study(axes={"units.analog.rows": [64]}, workload={"prompt": 9}), tmp_path / "old")
    with pytest.raises(DataError, match="Values may be added, axes not"):
        run(study(), tmp_path / "old")
    (tmp_path / "points").mkdir()
    (tmp_path / "points" / "0123.json").write_text("{}")
    with pytest.raises(DataError, match="is not a Cimphony record"):
        run(study(), tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot be written: .*; choose another with --out"):
        run(study(), tmp_path / "file" / "folder")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_is_read_only(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(DataError, match="choose another with --out"):
        run(study(), tmp_path / "new")


def test_a_missing_model_fails_its_own_points_where_models_are_an_axis(tmp_path):
    asked = study(axes={"model": ["demo", "nowhere/at/all"]})
    assert [row["status"] for row in run(asked, tmp_path).results["points"]] == ["done", "failed"]
