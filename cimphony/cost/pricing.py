"""What the components of a unit cost: energy per action, area and static power, carried to the chip's node."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from cimphony.chip import Acam, AcamCell, Adc, Chip, Component, CrossbarUnit, GpuUnit, Unit
from cimphony.chip.nodes import nominal_voltage
from cimphony.chip.pricing import instances
from cimphony.cost.adc import conversion_energy, converter_area
from cimphony.cost.scaling import area_factor, energy_factor
from cimphony.mapping import cells_per_weight


@dataclass
class Priced:
    """One component of one unit."""

    name: str  # unit.component
    actions: list[tuple[str, float]]  # energy of each action [J]
    area: float  # of all instances on one chip [m2]
    leakage: float  # of all instances on one chip [W]


@dataclass
class Prices:
    """The components of a chip by unit, and what was assumed on the way."""

    units: dict[str, list[Priced]] = field(default_factory=dict[str, list[Priced]])
    assumptions: list[str] = field(default_factory=list[str])
    scaled: bool = False  # whether any is of another node or voltage


def price(chip: Chip) -> Prices:
    """Prices of every component of a chip."""
    prices = Prices()
    for name, unit in chip.units.items():
        prices.units[name] = [
            _price(f"{name}.{key}", part, unit, chip, prices) for key, part in unit.components.items()
        ]
        if isinstance(unit, CrossbarUnit) and unit.converter is not None:
            prices.units[name].append(_price_adc(f"{name}.adc", unit, unit.converter, chip, prices))
        if isinstance(unit, CrossbarUnit) and unit.acam is not None:
            prices.units[name].append(_price_acam(f"{name}.acam", unit, unit.acam, chip, prices))
        if isinstance(unit, GpuUnit) and unit.area:
            prices.units[name].append(Priced(f"{name}.die", [], unit.area, 0.0))
    if prices.scaled:
        prices.assumptions.append("only energy and area of components are scaled: times, links and writes stay")
    return prices


def total(counts: Mapping[str, float], priced: Priced) -> float:
    """Energy of the counted actions [J]."""
    energy = 0.0
    for action, cost in priced.actions:
        number = counts.get(action)
        if number:
            energy += number * cost
    return energy


def sampling_rate(unit: CrossbarUnit, adc: Adc) -> float:
    """Conversions a second of one converter, if it takes the whole cycle."""
    return adc.columns_per_adc / unit.cycle


def _price(name: str, part: Component, unit: Unit, chip: Chip, prices: Prices) -> Priced:
    energy, area = _scale(name, part, chip, prices)
    number = _instances(part.per, unit)
    actions = [(action, cost * energy) for action, cost in part.energy.items()]
    return Priced(name, actions, part.area * area * number, part.leakage * energy * number)


def _price_acam(name: str, unit: CrossbarUnit, acam: Acam, chip: Chip, prices: Prices) -> Priced:
    if acam.cell is None:
        prices.assumptions.append(f"{name}: no price of a cell in the description, conversions cost nothing")
        return Priced(name, [], 0.0, 0.0)
    energy, area = _scale(name, acam.cell, chip, prices)
    number = acam.cells * _instances("adc", unit)
    return Priced(name, [("convert", acam.cells * acam.cell.energy * energy)], acam.cell.area * area * number, 0.0)


def _price_adc(name: str, unit: CrossbarUnit, adc: Adc, chip: Chip, prices: Prices) -> Priced:
    rate = sampling_rate(unit, adc)
    energy, area = _scale(name, adc, chip, prices)
    node = adc.node or chip.node
    actions: list[tuple[str, float]] = []
    if adc.energy_law is None:
        prices.assumptions.append(f"{name}: no energy law in the description, conversions cost nothing")
    else:
        for mode in unit.cell.bits:
            cost = conversion_energy(adc.energy_law, adc.bits[mode], node, rate)
            actions.append((f"convert_{mode}", cost * energy))
        if adc.energy_law.kind == "survey":
            prices.assumptions.append(
                f"{name}: energy and area by the public converter survey's best fifth at {node * 1e9:g} nm and "
                f"{rate / 1e6:g} MS/s (arXiv 2404.06553); published converters lie up to 3 times either side"
            )
        elif len(unit.cell.bits) > 1:
            prices.assumptions.append(f"{name}: resolution law {adc.energy_law.kind!r}")
    return Priced(name, actions, converter_area(adc, node, rate) * area * _instances("adc", unit), 0.0)


def _scale(name: str, part: Component | Adc | AcamCell, chip: Chip, prices: Prices) -> tuple[float, float]:
    """Factors on energy and area from the component's node and voltage to the chip's; declared where they are not 1."""
    node, voltage = part.node or chip.node, part.voltage or chip.voltage
    usual = part.voltage is None or part.voltage == (chip.voltage or nominal_voltage(chip.node))
    if node == chip.node and usual:
        return 1.0, 1.0
    energy = energy_factor(node, chip.node, voltage, chip.voltage)
    area = 1.0 if node == chip.node else area_factor(node, chip.node)
    old, new = f"{node * 1e9:g}", f"{chip.node * 1e9:g} nm"
    if usual:
        how = f"from {old} to {new} by Stillmaker and Baas at " + (f"{voltage:g} V" if voltage else "nominal voltages")
    else:
        to = chip.voltage or nominal_voltage(chip.node)
        how = f"from {old} nm at {voltage:g} V to {new} at {to:g} V by Stillmaker and Baas"
    prices.scaled = True
    prices.assumptions.append(f"{name}: scaled {how}: energy x {energy:.4g}, area x {area:.4g}")
    return energy, area


def _instances(per: str, unit: Unit) -> float:
    """How many instances of a component one chip has."""
    count = getattr(unit, "count", {})
    if per in count or not isinstance(unit, CrossbarUnit):
        return instances(count, per)
    arrays = math.prod(unit.count.values())
    sharing = unit.converter.columns_per_adc if unit.converter else unit.columns
    if unit.acam:
        sharing = cells_per_weight(unit, next(iter(unit.cell.bits)))  # one for each column of outputs
    return {
        "row": arrays * unit.rows,
        "column": arrays * unit.columns,
        "adc": arrays * unit.columns / sharing,
        "chip": 1,
    }[per]
