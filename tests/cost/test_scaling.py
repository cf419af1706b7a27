"""Stillmaker and Baas: the ratios their users quote, and what must hold between any two nodes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cimphony.chip import load_chip
from cimphony.chip.nodes import NODES, nominal_voltage
from cimphony.cost import estimate
from cimphony.cost.scaling import area_factor, energy_factor
from cimphony.errors import ChipError
from tests.cost.workloads import bert_base

nm = st.sampled_from(NODES).map(lambda size: size * 1e-9)


def test_handy_energy_ratios_to_four_digits():
    assert energy_factor(32e-9, 65e-9, 1.0, 1.0) == pytest.approx(2.32583, rel=5e-6)  # all of HyFlexPIM's Table 2
    assert energy_factor(32e-9, 65e-9, 0.9, 0.9) == pytest.approx(2.3152, rel=5e-5)
    assert energy_factor(65e-9, 7e-9, 1.0, 0.7) == pytest.approx(0.0359, rel=1e-3)


def test_authors_erratum():
    """Energy factors 0.4571 (32 nm at 0.9 V) and 2.604 (65 nm at 1.3 V)."""
    assert energy_factor(65e-9, 32e-9, 1.3, 0.9) == pytest.approx(0.4571 / 2.604, rel=5e-4)


def test_area_uses_the_entry_with_more_digits():
    assert area_factor(65e-9, 32e-9) == 0.31
    assert area_factor(32e-9, 65e-9) == 1 / 0.31  # HyFlexPIM's choice, not the printed 3.3
    assert area_factor(65e-9, 7e-9) == 0.039


@given(nm, nm)
def test_there_and_back_is_nothing(old: float, new: float):
    for factor in (area_factor, energy_factor):
        assert factor(old, new) * factor(new, old) == pytest.approx(1)
        assert factor(old, old) == 1


@given(nm, nm)
def test_a_finer_node_is_smaller_and_takes_less(old: float, new: float):
    if new < old:
        assert area_factor(old, new) < 1
        assert energy_factor(old, new) < 1


def test_nearby_nodes_use_the_nearest_table_row():
    assert area_factor(28e-9, 65e-9) == area_factor(32e-9, 65e-9)
    assert nominal_voltage(65e-9) == 1.1


def test_what_cannot_be_scaled_says_so():
    with pytest.raises(ChipError, match=r"node = 350 nm cannot be scaled; the tables go from 180 to 7 nm"):
        area_factor(350e-9, 65e-9)
    with pytest.raises(ChipError, match=r"voltage = 0.3 V is outside the scaling table at 180 nm"):
        energy_factor(180e-9, 65e-9, 0.3, 1.0)
    for volts in (0.5, 5):  # the fit rises below 0.59 V
        with pytest.raises(ChipError, match=rf"voltage = {volts} V is outside .* nominal, 1.1 V"):
            energy_factor(65e-9, 65e-9, 1.0, volts)
    with pytest.raises(ChipError, match=r"^chip 'n': node = 3 nm cannot be scaled; .* give every component numbers"):
        estimate(bert_base(128), load_chip("hyflexpim").replace({"node": 3e-9, "name": "n"}))


# a chip at another node or voltage

HYFLEX, WORK = load_chip("hyflexpim"), bert_base(128)
RRAM, RRAM_READ = "units.analog.components.rram", 11.8711e-12


@pytest.mark.parametrize(
    ("changes", "energy", "area", "said"),
    [
        ({"node": 32e-9}, 0.430, 0.31, "from 65 to 32 nm by Stillmaker and Baas at 1 V: energy x 0.43, area x 0.31"),
        ({"node": 32e-9, "voltage": 0.9}, 0.343, 0.31, "from 65 nm at 1 V to 32 nm at 0.9 V"),
        ({"voltage": 0.8}, 0.646, 1.0, "from 65 nm at 1 V to 65 nm at 0.8 V"),
        ({"voltage": None}, energy_factor(65e-9, 65e-9, 1.0, 1.1), 1.0, "from 65 nm at 1 V to 65 nm at 1.1 V"),
    ],
)
def test_another_node_or_voltage_scales_once_however_it_is_said(tmp_path, changes, energy, area, said):
    """In `replace`, in a chip file with a base, and one after the other."""
    lines = [f"{key}: {'null' if value is None else value}" for key, value in changes.items()]
    (tmp_path / "mine.yaml").write_text("\n".join(["base: hyflexpim", *lines]))
    step = HYFLEX
    for key, value in changes.items():
        step = step.replace({key: value})
    before = estimate(WORK, HYFLEX)
    for chip in (HYFLEX.replace(changes), load_chip(tmp_path / "mine.yaml"), step, step.replace({"name": "again"})):
        after = estimate(WORK, chip)
        assert after.energy == pytest.approx(before.energy * energy, rel=2e-3)
        assert after.area == pytest.approx(before.area * area, rel=1e-9)
        assert (after.latency, after.interval) == (before.latency, before.interval)
        assert any(said in one for one in after.assumptions)
        assert "only energy and area of components are scaled: times, links and writes stay" in after.assumptions
    back = step.replace({"node": HYFLEX.node, "voltage": HYFLEX.voltage})
    assert estimate(WORK, back).energy == before.energy


def test_numbers_given_with_the_node_are_of_that_node():
    given = {"node": 32e-9, f"{RRAM}.energy": {"read": 1e-12}, f"{RRAM}.area": 1e-12}
    part = HYFLEX.replace(given).units["analog"].components
    assert (part["rram"].node, part["input_register"].node) == (None, 65e-9)
    same = HYFLEX.replace({"voltage": 0.8, f"{RRAM}.energy.read": 1e-12}).units["analog"].components
    assert (same["rram"].voltage, same["input_register"].voltage) == (None, 1.0)  # area knows no voltage
    stated = HYFLEX.replace({"node": 32e-9, f"{RRAM}.node": 32e-9}).units["analog"].components["rram"]
    assert (stated.node, stated.energy["read"]) == (32e-9, RRAM_READ)
    with pytest.raises(ChipError, match=r"'hyflexpim': units.analog.*rram: area is given .*energy.read taken over"):
        HYFLEX.replace({"node": 32e-9, f"{RRAM}.area": 1e-12})


def test_numbers_of_a_node_of_their_own_are_scaled_from_it_alone():
    chip = load_chip("nl-dpe")  # 22 nm, tile memory of 32 nm, the ACAM's cells of the chip's own
    moved = chip.replace({"node": 45e-9}).units["analog"]
    assert (moved.components["edram"].node, moved.components["dac"].node, moved.acam.cell.node) == (32e-9, 22e-9, 22e-9)
    turned = chip.replace({"voltage": 0.8}).units["analog"]
    assert (turned.components["edram"].voltage, turned.components["dac"].voltage) == (0.9, 0.9)
    survey = load_chip("pcm-256").replace({"node": 22e-9}).units["analog"]
    assert (survey.adc.node, survey.components["array"].node) == (None, 14e-9)
