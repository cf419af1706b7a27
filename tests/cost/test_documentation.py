"""docs/cost.md: the worked example is what `estimate` says, line by line."""

import re
from pathlib import Path

import pytest

from cimphony.chip import load_chip
from cimphony.chip.pricing import ACAM_ACTIONS, CROSSBAR_ACTIONS, NOR_ACTIONS, ROOFLINE_ACTIONS, SPECIAL_ACTIONS
from cimphony.cost import estimate
from cimphony.workload import Operation, Workload

PAGE = (Path(__file__).parents[2] / "docs" / "cost.md").read_text(encoding="utf-8")


def test_worked_example():
    chip = load_chip("hyflexpim").replace({"units.analog.schedule.copies": "one"})
    layer = Operation(layer="w", kind="static_matmul", m=3, k=100, n=40)
    report = estimate(Workload(model="example", operations=[layer]), chip)
    lines = re.findall(r"^\| (\w+) \| .+ \| (\d+) \| ([\d.]+) \| ([\d.]+) \|$", PAGE, re.M)
    written: dict[str, float] = {}
    for component, count, each, together in lines:
        assert int(count) * float(each) == pytest.approx(float(together), abs=0.006)
        written[f"analog.{component}"] = written.get(f"analog.{component}", 0.0) + float(together)
    ours = {row["component"]: row["energy"] * 1e12 for row in report.by("component") if row["energy"] > 1e-15}
    assert ours == pytest.approx(written, abs=0.006)
    assert report.energy * 1e9 == pytest.approx(18.246, abs=5e-4)
    assert report.interval * 1e6 == pytest.approx(2.4)


def test_every_action_is_in_the_table():
    for actions in (ACAM_ACTIONS, CROSSBAR_ACTIONS, NOR_ACTIONS, SPECIAL_ACTIONS, ROOFLINE_ACTIONS):
        for action in actions:
            assert f"`{action}`" in PAGE
