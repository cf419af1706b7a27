"""Energy and area of a converter by the law its description names."""

import math

from cimphony.chip.crossbar import Adc, DoublingLaw, EnergyLaw, LinearLaw, TableLaw
from cimphony.errors import ChipError


def conversion_energy(law: EnergyLaw, bits: int, node: float, rate: float) -> float:
    """Energy of one conversion [J] at `bits`.

    Node [m] and rate [samples/s] matter to the survey law only. Raises ChipError where a table has no entry.
    """
    if isinstance(law, DoublingLaw):
        return law.energy * 2.0 ** (bits - law.bits)
    if isinstance(law, LinearLaw):
        return law.energy_per_bit * bits
    if isinstance(law, TableLaw):
        if bits not in law.energy:
            known = ", ".join(str(one) for one in sorted(law.energy))
            raise ChipError(
                f"adc.energy_law has no energy for {bits} bits, only for {known}; add it or change adc.bits"
            )
        return law.energy[bits]
    return survey_energy(bits, node, rate)


def converter_area(adc: Adc, node: float, rate: float) -> float:
    """Area of one converter [m2]; 0 where neither the description nor the survey gives one."""
    if adc.area is not None:
        return adc.area
    if adc.energy_law is None or adc.energy_law.kind != "survey":
        return 0.0
    return survey_area(max(adc.bits.values()), node, rate)


def survey_energy(bits: float, node: float, rate: float) -> float:
    """Energy of one conversion [J]: regression over the public converter survey, its best fifth.

    Source: Andrulis, Chen, Lee, Emer and Sze, arXiv 2404.06553, over B. Murmann's survey. `bits` is the effective
    number, 4 and more; rate in samples/s; node in m.
    """
    effective = max(float(bits), 4.0)
    best = 128.307 + 3.22048 * math.ceil(effective)
    merit = min(213.7807 - 2.87190 * math.log(rate), best)
    distortion = 6.02 * effective + 1.76
    shape = 26.0496 + 1.88004 * math.log(node * 1e9) - 2.82913 * math.log(effective) - 1.47020
    return math.exp(shape) / (2 * 10 ** ((merit - distortion) / 10)) * 1e-12


def survey_area(bits: float, node: float, rate: float) -> float:
    """Area of one converter [m2] by the same regression."""
    energy = math.log(survey_energy(bits, node, rate) * 1e12)
    return math.exp(1.34619 + 0.993279 * math.log(node * 1e9) + 0.180715 * math.log(rate) + 0.299124 * energy) * 1e-12
