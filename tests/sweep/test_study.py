"""The definition of a study: what it means, and one clear sentence where it is wrong."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from cimphony.errors import CimphonyError, DataError
from cimphony.record import read_record
from cimphony.sweep import front, load_study, make_study
from cimphony.sweep.apply import Point, check
from cimphony.sweep.store import digest
from tests.sweep.studies import COST, study

ROOT = Path(__file__).parent.parent.parent


def test_a_grid_is_every_combination_in_order():
    grid = list(study().grid())
    assert len(grid) == 9
    assert grid[1] == {"units.analog.rows": 32, "units.analog.adc.bits": 7}
    assert len({digest(axes) for axes in grid}) == 9
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1}) != digest({"a": 2, "b": 1})


def test_yaml_round_trip(tmp_path):
    asked = study(question="ü?", search={"kind": "random", "points": 3}, exclude=["lm_head"])
    (tmp_path / "study.yaml").write_text(asked.to_yaml(), encoding="utf-8")
    assert load_study(tmp_path / "study.yaml") == asked


def test_a_chip_file_beside_the_study_is_taken_in(tmp_path):
    (tmp_path / "mine.yaml").write_text("base: hyflexpim\nname: mine\nunits: {analog: {rows: 48}}")
    (tmp_path / "study.yaml").write_text(study(chip="mine.yaml").to_yaml())
    found = load_study(tmp_path / "study.yaml")
    (tmp_path / "mine.yaml").unlink()
    assert found.base_chip().name == "mine"
    inline = study(chip={"base": "hyflexpim", "name": "mine", "units": {"analog": {"rows": 48}}})
    assert inline.base_chip() == found.base_chip()


def test_what_a_point_is():
    axes = {"sigma": 0.2, "wide": 256, "workload.prompt": 7, "age": "1h", "seed": 4, "fidelity": "effective"}
    fields = {
        "sigma": ["units.analog.cell.device.mlc.multiplicative"],
        "wide": ["units.analog.rows", "units.analog.columns"],
    }
    asked = study(axes={name: {"values": [value], "fields": fields.get(name, [])} for name, value in axes.items()})
    check(asked)
    chip = Point(asked, {**axes, "wide": 64}).chip
    assert chip.units["analog"].cell.device["mlc"].multiplicative == 0.2
    assert (chip.units["analog"].rows, chip.units["analog"].columns) == (64, 64)
    assert chip.units["analog"].fidelity == "effective"
    assert Point(asked, axes).work.prompt == 7
    assert Point(asked, axes).age == 3600
    other_chip = {**axes, "sigma": 0.1}
    assert Point(asked, axes).shares == Point(asked, {**axes, "seed": 5, "age": 0}).shares
    assert Point(asked, axes).shares[0] == Point(asked, other_chip).shares[0]
    assert Point(asked, axes).shares != Point(asked, other_chip).shares


def test_a_method_s_rate_reaches_the_cost():
    asked = study(axes={"method.slc_rate": [0.0, 0.5]}, method={"by": "random"})
    assert [Point(asked, axes).chip.units["analog"].cell.slc_rate for axes in asked.grid()] == [0.0, 0.5]


def test_ranges():
    axis = study(axes={"units.analog.cycle": {"low": 1e-9, "high": 1e-7, "log": True, "count": 3}}).axes
    assert axis["units.analog.cycle"].grid() == pytest.approx((1e-9, 1e-8, 1e-7))
    whole = study(axes={"units.analog.rows": {"low": 1, "high": 4, "whole": True, "count": 9}}).axes
    assert whole["units.analog.rows"].grid() == (1, 2, 3, 4)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"axis": {}}, "axis is not a field"),
        ({"axes": {}}, "axes"),
        ({"axes": {"rows": [1]}}, "axis 'rows': 'rows' is unknown; choose seed, age"),
        ({"axes": {"workload.promt": [1]}}, "workload has model, prompt"),
        ({"axes": {"age": []}}, "at least one value"),
        ({"axes": {"age": [1, 1]}}, "each once"),
        ({"axes": {"node": {"low": 2, "high": 1}}}, "low = 2.0 must be below"),
        ({"axes": {"node": {"low": 1}}}, "either values, or low and high"),
        ({"axes": {"age": [*range(1001)], "seed": [*range(1000)]}}, "more than 1,000,000 points"),
        ({"measures": {"energy": "less"}}, "should be 'min' or 'max'"),
        ({"measures": []}, "measures"),
        ({"search": {"kind": "random"}}, "which need it"),
        ({"search": {"kind": "optuna", "points": 3}, "measures": {"energy": None}}, "needs a measure with a direction"),
        ({"population": {"precision": 0.1}}, "both most and precision"),
        ({"data": {"task": "SST-2"}}, "task with the folder"),
        ({"workload": {"prompt": 0}}, "workload.prompt = 0"),
        ({"chip": {"base": "hyflexpin"}}, "hyflexpin"),
    ],
)
def test_bad_definitions(changes, words):
    with pytest.raises(CimphonyError, match=re.escape(words)) as said:
        make_study({**COST, **changes})
    assert "\n" not in str(said.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"axes": {"units.analog.row": [1]}}, "'units.analog.row' is not a field of hyflexpim"),
        ({"axes": {"units.analogue.rows": [1]}}, "units has analog, digital, sfu"),
        ({"axes": {"node.rows": [1]}}, "node has no fields"),
        ({"chip": "nope"}, "nope"),
        ({"measures": ["speed"]}, "measure 'speed' is unknown; choose from energy"),
        ({"measures": ["yield", "energy"]}, "'yield' needs a measure of the model"),
    ],
)
def test_what_is_checked_before_anything_runs(changes, words):
    with pytest.raises(CimphonyError, match=re.escape(words)):
        check(study(**changes))


def test_a_node_as_an_axis_scales_prices():
    """As in `explore`: a component keeps the node that its numbers are of."""
    asked = study(axes={"node": [32e-9]}, measures=["energy"])
    (chip,) = (Point(asked, axes).chip for axes in asked.grid())
    assert (chip.node, chip.units["analog"].components["rram"].node) == (32e-9, 65e-9)


def test_files_that_are_no_study(tmp_path):
    for content, words in ((b"name: [", "not valid YAML"), (b"- 1", "start with 'name"), (b"\xff", "cannot be read")):
        (tmp_path / "bad.yaml").write_bytes(content)
        with pytest.raises(DataError, match=words):
            load_study(tmp_path / "bad.yaml")
    with pytest.raises(DataError, match="cannot be read"):
        load_study(tmp_path / "none.yaml")


def test_committed_studies_and_the_one_in_the_docs_are_studies():
    for path in sorted((ROOT / "studies").glob("*.yaml")):
        check(load_study(path))
    asked = load_study(ROOT / "studies" / "results" / "slc_rate" / "study.yaml")
    assert asked == load_study(ROOT / "studies" / "slc_rate.yaml")
    first, search = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "studies.md").read_text(encoding="utf-8"), re.S)
    told = make_study(yaml.safe_load(first) | yaml.safe_load(search))
    check(told)
    assert len(list(told.grid())) == 12


@pytest.mark.parametrize("name", ["adc_rows_sigma", "slc_rate", "chips_side_by_side", "converters", "wires"])
def test_committed_results_are_whole(name):
    record = read_record(ROOT / "studies" / "results" / name / "study.json")
    asked = load_study(ROOT / "studies" / f"{name}.yaml")
    assert record.complete
    assert make_study(record.settings) == asked
    assert {row["digest"] for row in record.results["points"]} == {digest(axes) for axes in asked.grid()}
    best = front(record.results["points"], asked.goals, lambda row: row["measures"])
    assert [row["digest"] for row in best] == record.results["front"]


def test_planning_never_loads_torch():
    code = "import sys, cimphony.sweep; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
