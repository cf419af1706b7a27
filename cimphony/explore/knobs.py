"""What can be turned on a chip: fields that architects vary first, each with the values worth trying."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from cimphony.chip import Adc, Chip, CrossbarUnit, GpuUnit
from cimphony.chip.nodes import NODES

_POWERS = tuple(2**power for power in range(3, 12))
_RATES = tuple(step / 20 for step in range(21))
_COPIES = ("one", "whole", "ideal")


@dataclass(frozen=True)
class Knob:
    """A field of a chip and its values; the chip's own is always among them."""

    path: str  # dotted, as `Chip.replace` takes it
    label: str
    values: tuple[Any, ...]
    value: Any
    unit: str = ""


def knobs(chip: Chip) -> list[Knob]:
    """The knobs of a chip: those of the unit that stores its weights, then the technology node."""
    unit, name = chip.unit_for("static_matmul"), f"units.{chip.policy.get('static_matmul')}"
    found: list[Knob] = []
    if isinstance(unit, CrossbarUnit):
        found = _crossbar(unit, name)
    elif isinstance(unit, GpuUnit):
        rates = (("compute_utilisation", "Share of peak reached"), ("memory_utilisation", "Share of bandwidth reached"))
        found = [_knob(f"{name}.{field}", label, _RATES[1:], getattr(unit, field)) for field, label in rates]
    if isinstance(unit, GpuUnit):
        return found
    return [*found, _knob("node", "Technology node", [round(node * 1e-9, 12) for node in NODES], chip.node, "m")]


def _crossbar(unit: CrossbarUnit, name: str) -> list[Knob]:
    several = len(unit.cell.bits) > 1
    adc = unit.adc if isinstance(unit.adc, Adc) else None
    found = [
        _knob(f"{name}.rows", "Rows of an array", _POWERS, unit.rows),
        _knob(f"{name}.columns", "Columns of an array", _POWERS, unit.columns),
    ]
    for mode, bits in unit.cell.bits.items():
        said = f" ({mode.upper()})" if several else ""
        if adc:
            found.append(_knob(f"{name}.adc.bits.{mode}", f"Converter bits{said}", range(1, 15), adc.bits[mode]))
        found.append(_knob(f"{name}.cell.bits.{mode}", f"Cell bits{said}", range(1, 5), bits))
    if adc:
        sharing = adc.columns_per_adc
        found.append(_knob(f"{name}.adc.columns_per_adc", "Columns a converter", (1, 2, 4, *_POWERS), sharing))
    if unit.acam:
        found.append(_knob(f"{name}.adc.bits", "Bits of an ACAM's code", range(2, 11), unit.acam.bits))
    if unit.cell.slc_rate is not None:
        found.append(_knob(f"{name}.cell.slc_rate", "Share of columns in SLC", _RATES, unit.cell.slc_rate))
    for field, label, bits in (
        ("encoding", "Weight bits", unit.encoding.bits),
        ("input", "Input bits", unit.input.bits),
    ):
        if bits is not None:
            found.append(_knob(f"{name}.{field}.bits", label, range(1, 17), bits))
    return [*found, Knob(f"{name}.schedule.copies", "Copies in spare arrays", _COPIES, unit.schedule.copies)]


def _knob(path: str, label: str, values: Iterable[Any], value: Any, unit: str = "") -> Knob:
    others = [one for one in values if abs(one - value) > 1e-9 * abs(value)]
    return Knob(path, label, tuple(sorted([*others, value])), value, unit)
