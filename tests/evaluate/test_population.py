"""A population of chips: the record, going on after an interruption, and a model that comes back unchanged."""

import copy
import json
import statistics

import numpy as np
import pytest
import torch
from torch import nn

from cimphony.chip import load_chip
from cimphony.errors import CapacityError, ChipError, DataError, StateError
from cimphony.evaluate import accuracy, evaluate_chips
from cimphony.nn import age_, analog_layers, calibrate, convert_, program_
from cimphony.record import read_record

DAY = 86_400.0


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def small_model():
    model = nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 4))
    with torch.no_grad():
        for place, parameter in enumerate(model.parameters()):
            parameter.copy_(draw(*parameter.shape, seed=place))
    return model


X = draw(40, 12, seed=9)


with torch.no_grad():
    DIGITAL = small_model()(X)


@torch.no_grad()
def error(model):
    """Distance from the digital outputs."""
    return float((model(X) - DIGITAL).pow(2).mean())


def chip():
    return load_chip("pcm-256")


def run(model=None, metric=error, **options):
    given = {"seeds": [0, 1, 2], "ages": (0.0, DAY), "calibration": X, "progress": False} | options
    return evaluate_chips(model or small_model(), metric, given.pop("chip", chip()), **given)


def test_points_are_what_the_verbs_give():
    record = run(fidelities=("exact", "effective"))
    assert len(record.results["points"]) == 12
    assert record.results["digital"] == 0
    assert record.complete
    for fidelity in ("exact", "effective"):
        model = small_model()
        convert_(model, chip().replace({"units.analog.fidelity": fidelity}))
        with calibrate(model), torch.no_grad():
            model(X)
        for seed, age in ((0, 0.0), (2, DAY)):
            age_(program_(model, seed=seed), seconds=age)
            found = {"seed": seed, "age": age, "fidelity": fidelity}
            assert {**found, "value": error(model)} in record.results["points"]


def test_groups_are_mean_and_sample_spread():
    record = run(fidelities=("effective",))
    fresh = [point["value"] for point in record.results["points"] if point["age"] == 0]
    group = next(one for one in record.results["groups"] if one["age"] == 0)
    assert group["chips"] == 3
    assert group["mean"] == pytest.approx(sum(fresh) / 3)
    assert group["sd"] == pytest.approx(statistics.stdev(fresh))
    assert (group["min"], group["max"]) == (min(fresh), max(fresh))
    assert len(set(fresh)) == 3
    assert run(seeds=[0]).results["groups"][0]["sd"] is None


def test_seeds_and_ages_of_numpy(tmp_path):
    run(seeds=np.arange(2), ages=np.array([0, 60]), record_path=tmp_path / "record.json")
    assert run(seeds=[0, 1], ages=[0, 60], record_path=tmp_path / "record.json").results["groups"][1]["chips"] == 2


def test_the_record_says_what_ran(tmp_path):
    path = tmp_path / "run.json"
    record = run(metric_name="distance", settings={"data": "random"}, exclude=["2"], record_path=path)
    assert read_record(path) == record
    assert record.settings["metric"] == "distance"
    assert record.settings["data"] == "random"
    assert record.settings["seeds"] == [0, 1, 2]
    assert record.chip == json.loads(chip().model_dump_json())
    rows = {row["layer"]: row for row in record.layers}
    assert rows["0"]["fidelity"] == "exact"
    assert rows["2"] == {"layer": "2", "runs_on": "digital", "why": "excluded"}
    assert "torch" in record.versions
    assert record.duration > 0


def test_the_model_comes_back_digital():
    model = small_model().train()
    before = copy.deepcopy(model.state_dict())
    state = torch.get_rng_state()
    run(model)  # on the exact read, fresh and aged
    assert torch.equal(state, torch.get_rng_state())
    assert not analog_layers(model)
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


class Stops:
    """A metric that is interrupted at a certain call."""

    __name__ = "error"

    def __init__(self, at):
        self.at, self.calls = at, 0

    def __call__(self, model):
        self.calls += 1
        if self.calls == self.at:
            raise KeyboardInterrupt
        return error(model)


def test_an_interruption_leaves_what_is_finished(tmp_path):
    path, model = tmp_path / "run.json", small_model()
    with pytest.raises(KeyboardInterrupt):
        run(model, metric=Stops(at=5), record_path=path)  # digital, three points, then the fourth stops
    assert not analog_layers(model)
    left = read_record(path)
    assert not left.complete
    assert len(left.results["points"]) == 3
    counting = Stops(at=-1)
    gone_on = run(metric=counting, record_path=path)
    assert counting.calls == 3
    assert gone_on.complete
    assert gone_on.results == run(metric=Stops(at=-1)).results
    assert gone_on.created == left.created
    assert gone_on.duration > left.duration


def test_an_interruption_before_the_first_point(tmp_path):
    path = tmp_path / "run.json"
    with pytest.raises(KeyboardInterrupt):
        run(metric=Stops(at=2), record_path=path)
    assert read_record(path).results["points"] == []
    assert run(metric=Stops(at=-1), record_path=path).complete


def test_more_chips_can_be_added_later(tmp_path):
    path = tmp_path / "run.json"
    run(metric=Stops(at=-1), seeds=[0], record_path=path)
    counting = Stops(at=-1)
    record = run(metric=counting, seeds=[0, 1], fidelities=("exact", "effective"), record_path=path)
    assert counting.calls == 6
    assert record.settings["seeds"] == [0, 1]
    assert sorted({row["fidelity"] for row in record.layers if "fidelity" in row}) == ["effective", "exact"]


def test_a_record_of_another_run(tmp_path):
    path = tmp_path / "run.json"
    run(seeds=[0], settings={"window": 128}, record_path=path)
    other = small_model()
    with torch.no_grad():
        other[0].bias[0] += 1
    changed = {
        "settings.window was 128": {"settings": {"window": 64}},
        "settings.exclude was": {"settings": {"window": 128}, "exclude": ["2"]},
        "settings.model was": {"settings": {"window": 128}, "model": other},
        "chip was 'pcm-256'": {"settings": {"window": 128}, "chip": chip().replace({"node": 22e-9})},
    }
    for message, options in changed.items():
        with pytest.raises(DataError, match=message):
            run(seeds=[0], record_path=path, **options)


def test_bad_input():
    with pytest.raises(DataError, match="must each have an entry"):
        run(seeds=[])
    for seeds in (3, [0.5]):
        with pytest.raises(DataError, match=r"seeds = .* is not allowed: give whole numbers"):
            run(seeds=seeds)
    with pytest.raises(DataError, match="gives nan on the digital model"):
        run(metric=lambda model: float("nan"))
    with pytest.raises(DataError, match=r"gives inf on pcm-256, seed 0, age 0 s, exact"):
        run(metric=lambda model: float("inf") if analog_layers(model) else 1.0)
    with pytest.raises(DataError, match=r"seconds = -1.0 is not allowed"):
        run(ages=[-1.0])
    with pytest.raises(ChipError, match="fidelity"):
        run(fidelities=["perfect"])
    with pytest.raises(StateError, match="restore_"):
        run(convert_(small_model(), chip()))
    with pytest.raises(DataError, match="its numbers are the digital model's"):
        run(chip=load_chip("gpu-h100"))


def test_capacity():
    tight = chip().replace({"units.analog.count": dict.fromkeys(chip().units["analog"].count, 1)})
    model = small_model()
    with pytest.raises(CapacityError, match="chips would do"):
        run(model, chip=tight, chips=1)
    assert not analog_layers(model)


def test_accuracy_of_a_population():
    labels = DIGITAL.argmax(-1)
    record = run(metric=lambda model: accuracy(model, [(X, labels)]), metric_name="accuracy")
    assert record.results["digital"] == 1
    assert all(0.5 < point["value"] <= 1 for point in record.results["points"])


def test_mappings_and_lists_calibrate():
    batch = {"input": X}
    assert run(calibration=batch).results == run(calibration=[X]).results
