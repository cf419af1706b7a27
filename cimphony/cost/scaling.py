"""Numbers of one technology node carried to another, by the tables of Stillmaker and Baas.

Source: A. Stillmaker and B. Baas, Integration 58 (2017), 74-81, with the authors' erratum. High-performance
variants below 65 nm. Area comes from their rounded table, read from the finer to the coarser node; energy and
delay are polynomials in the supply voltage.
"""

from functools import cache

from cimphony.chip.nodes import NODES, nearest, nominal_voltage
from cimphony.errors import ChipError

_AREA = (  # new area = old area * _AREA[old][new]
    (1, 0.34, 0.15, 0.08, 0.053, 0.025, 0.011, 0.01, 0.0093, 0.0055, 0.0032),
    (2.9, 1, 0.44, 0.23, 0.16, 0.072, 0.033, 0.03, 0.027, 0.016, 0.0092),
    (6.6, 2.3, 1, 0.53, 0.35, 0.16, 0.075, 0.067, 0.061, 0.036, 0.021),
    (12, 4.3, 1.9, 1, 0.66, 0.31, 0.14, 0.13, 0.12, 0.068, 0.039),
    (19, 6.4, 2.8, 1.5, 1, 0.46, 0.21, 0.19, 0.17, 0.1, 0.059),
    (40, 14, 6.1, 3.3, 2.2, 1, 0.46, 0.41, 0.38, 0.22, 0.13),
    (88, 30, 13, 7.1, 4.7, 2.2, 1, 0.89, 0.82, 0.48, 0.28),
    (99, 34, 15, 7.9, 5.3, 2.4, 1.1, 1, 0.91, 0.54, 0.31),
    (110, 37, 16, 8.7, 5.8, 2.7, 1.2, 1.1, 1, 0.59, 0.34),
    (180, 63, 28, 15, 9.8, 4.5, 2.1, 1.9, 1.7, 1, 0.58),
    (320, 110, 48, 25, 17, 7.8, 3.6, 3.2, 2.9, 1.7, 1),
)
_ENERGY = {  # quadratic in V, highest power first
    180: (0, 24.64, -17.98),
    130: (7.171, -6.709, 2.904),
    90: (4.762, -4.781, 2.092),
    65: (3.755, -4.398, 1.975),
    45: (1.018, -0.3107, 0.1539),
    32: (0.8367, -0.4341, 0.1701),
    20: (0.373, -0.1582, 0.04104),
    16: (0.2958, -0.1241, 0.03024),
    14: (0.2363, -0.09675, 0.02239),
    10: (0.2068, -0.09311, 0.02375),
    7: (0.1776, -0.09097, 0.02447),
}


@cache
def energy_factor(old: float, new: float, old_voltage: float | None = None, new_voltage: float | None = None) -> float:
    """Energy at the new node [m] and voltage [V] per energy at the old one; voltages default to nominal."""
    return _energy(new, new_voltage) / _energy(old, old_voltage)


@cache
def area_factor(old: float, new: float) -> float:
    """Area at the new node [m] per area at the old one.

    The printed table is rounded and not quite reciprocal; the entry below 1 is the one with more digits, so the
    way up is 1 / (the way down): 32 to 65 nm is 1 / 0.31, not 3.3.
    """
    row, column = NODES.index(nearest(old)), NODES.index(nearest(new))
    return _AREA[row][column] if row <= column else 1 / _AREA[column][row]


def _energy(node: float, voltage: float | None) -> float:
    usual, (square, linear, constant) = nominal_voltage(node), _ENERGY[nearest(node)]
    at = voltage or usual
    value = (square * at + linear) * at + constant
    falling = 2 * square * at + linear <= 0  # where the supply rises
    if value <= 0 or falling or at > 2 * usual:  # twice: our choice; the fits are of supplies around the usual one
        raise ChipError(
            f"voltage = {at:g} V is outside the scaling table at {node * 1e9:g} nm; choose one near nominal, "
            f"{usual:g} V, or give the components numbers of that voltage"
        )
    return value
