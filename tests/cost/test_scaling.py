"""Stillmaker and Baas: the ratios their users quote, and what must hold between any two nodes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cimphony.cost.scaling import NODES, area_factor, energy_factor, nominal_voltage
from cimphony.errors import ChipError

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
