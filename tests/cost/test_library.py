"""Published blocks: each has a source, is plausible and fits a chip."""

import pytest

from cimphony.chip import load_chip
from cimphony.chip.pricing import CROSSBAR_ACTIONS, NOR_ACTIONS, ROOFLINE_ACTIONS, SPECIAL_ACTIONS
from cimphony.cost import estimate
from cimphony.cost.library import library
from cimphony.cost.scaling import area_factor
from cimphony.workload import Operation, Workload
from tests.cost.workloads import bert_base

UNITS = {"analog": CROSSBAR_ACTIONS, "digital": NOR_ACTIONS, "sfu": SPECIAL_ACTIONS}


@pytest.mark.parametrize("name", library().components)
def test_components_fit_a_chip(name: str):
    part = library().components[name]
    assert part.source
    for cost in part.energy.values():
        assert 1e-16 < cost < 1e-8
    if part.node is not None:
        assert area_factor(part.node, 65e-9) > 0
    unit = next((unit for unit, actions in UNITS.items() if set(part.energy) <= set(actions)), None)
    if unit is None:
        assert set(part.energy) <= set(ROOFLINE_ACTIONS)
        chip = load_chip("gpu-a100").replace({"units.gpu.components": {"block": part.model_dump()}})
    else:
        chip = load_chip("hyflexpim").replace({f"units.{unit}.components": {"block": part.model_dump()}})
    rows = {row["component"].split(".")[1]: row["energy"] for row in estimate(bert_base(16), chip).by("component")}
    assert rows["block"] > 0


@pytest.mark.parametrize("name", library().converters)
def test_converters_fit_a_chip(name: str):
    part = library().converters[name]
    assert part.source
    bits = part.bits["mlc"]
    changes = {"bits": bits, "energy_law": part.energy_law.model_dump(), "area": part.area, "node": part.node}
    chip = load_chip("hyflexpim").replace({f"units.analog.adc.{field}": value for field, value in changes.items()})
    work = Workload(model="one", operations=[Operation(layer="w", kind="static_matmul", m=1, k=64, n=16)])
    rows = {row["component"]: row["energy"] for row in estimate(work, chip).by("component")}
    conversions = 8 * (1 * 8 + 15 * 4)
    assert 1e-13 < rows["analog.adc"] / conversions < 2e-11


def test_links_have_sources():
    assert all(link.source and link.bandwidth >= 1e9 for link in library().links.values())
