"""Converter laws: the survey's published values, and the shape of the others."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cimphony.chip.crossbar import Adc, DoublingLaw, LinearLaw, SurveyLaw, TableLaw
from cimphony.cost.adc import conversion_energy, converter_area, survey_area, survey_energy
from cimphony.errors import ChipError

# arXiv 2404.06553's model at its best fifth: node [nm], bits, rate [S/s], energy [pJ], area [um2]
SURVEY = [
    (65, 6, 1e8, 4.04, 10289), (65, 7, 1e8, 4.97, 10951), (65, 8, 1e8, 6.49, 11862),
    (65, 5, 1.28e9, 3.55, 15693), (65, 8, 1.28e9, 7.31, 19482), (32, 6, 1e8, 1.07, 3417), (32, 8, 1.28e9, 1.93, 6469),
    (28, 7, 1.28e9, 1.02, 4684), (7, 8, 1.28e9, 0.111, 608),
]  # fmt: skip


@pytest.mark.parametrize(("node", "bits", "rate", "energy", "area"), SURVEY)
def test_survey_regression(node: int, bits: int, rate: float, energy: float, area: float):
    assert survey_energy(bits, node * 1e-9, rate) * 1e12 == pytest.approx(energy, rel=0.01)
    assert survey_area(bits, node * 1e-9, rate) * 1e12 == pytest.approx(area, rel=0.01)


@given(st.integers(4, 12), st.floats(5e-9, 180e-9), st.floats(1e5, 5e9))
def test_survey_rises_with_bits_node_and_rate(bits: int, node: float, rate: float):
    energy = survey_energy(bits, node, rate)
    assert survey_energy(bits + 1, node, rate) > energy
    assert survey_energy(bits, node * 1.1, rate) > energy
    assert survey_energy(bits, node, rate * 2) >= energy
    assert survey_area(bits, node, rate * 2) > survey_area(bits, node, rate)


def test_the_ratio_of_one_more_bit_is_the_law():
    def step(law: DoublingLaw | LinearLaw | SurveyLaw | TableLaw) -> float:
        return conversion_energy(law, 7, 65e-9, 1.28e9) / conversion_energy(law, 6, 65e-9, 1.28e9)

    assert step(DoublingLaw(bits=8, energy=1e-12)) == 2  # HyFlexPIM, ISAAC
    assert step(LinearLaw(energy_per_bit=1e-12)) == pytest.approx(7 / 6)  # PUMA
    assert step(TableLaw(energy={6: 1.20e-12, 7: 1.42e-12})) == pytest.approx(1.18, abs=0.005)  # Saberi at 32 nm
    assert step(SurveyLaw()) == pytest.approx(1.23, abs=0.005)


def test_a_table_is_not_stretched():
    with pytest.raises(ChipError, match=r"no energy for 9 bits, only .*6, 7; add it or change adc.bits"):
        conversion_energy(TableLaw(energy={7: 1.0, 6: 1.0}), 9, 65e-9, 1e8)


def test_area_comes_from_the_description_or_the_survey_or_nowhere():
    def adc(**fields: object) -> Adc:
        return Adc.model_validate({"bits": 6, **fields})

    assert converter_area(adc(area=1e-10), 65e-9, 1e8) == 1e-10
    assert converter_area(adc(energy_law={"kind": "survey"}), 65e-9, 1e8) == survey_area(6, 65e-9, 1e8)
    assert converter_area(adc(), 65e-9, 1e8) == 0
