"""Non-idealities, each switched off by itself: which fields of which part belong to it, and what "off" is.

    programming   errors made when a cell is written, also what differs from cell to cell and stays so
    read          errors new at every read
    drift         what changes with age, leakage included
    stuck         cells that cannot be programmed
    wires         voltage lost along the rows and columns of an array
    converters    digital to analog and back: inputs and sums pass unquantised, reads become one product

Quantised weights and a bounded signal range are how a chip encodes numbers: they are never switched.
"""

from collections.abc import Collection, Iterable
from typing import Any, Literal, cast, get_args

from cimphony.errors import ChipError

NonIdeality = Literal["programming", "read", "drift", "stuck", "wires", "converters"]
NON_IDEALITIES: tuple[NonIdeality, ...] = get_args(NonIdeality)

# device fields: off is 0 for a number and null for an object
DEVICE: dict[NonIdeality, tuple[str, ...]] = {
    "programming": ("programming", "multiplicative", "additive"),
    "read": ("read",),
    "drift": ("drift",),
    "stuck": ("stuck",),
}
_Fields = dict[NonIdeality, dict[str, Any]]  # field -> its value when switched off
_CROSSBAR: _Fields = {
    "wires": {"wires": None},
    "converters": {"adc": None, "input.bits": None, "fidelity": "effective"},
}
_GAIN_CELLS: _Fields = {
    "programming": {"noise.gain": 0.0, "noise.offset": 0.0, "noise.comparator": 0.0, "noise.write": 0.0},
    "read": {"noise.read": 0.0, "noise.jitter": 0.0},
    "drift": {"cell.retention": None},
    "converters": {"pulses.input_levels": None, "pulses.output_levels": None},
}


def check_names(names: Iterable[str]) -> set[NonIdeality]:
    """Names of non-idealities; ChipError for one that is none."""
    found = list(names)
    for name in found:
        if name not in NON_IDEALITIES:
            raise ChipError(f"non-ideality {name!r} is not known; choose from {', '.join(NON_IDEALITIES)}")
    return set(cast("list[NonIdeality]", found))


def switch_off(data: dict[str, Any], off: Collection[NonIdeality]) -> dict[str, Any]:
    """A chip's plain data with these non-idealities off, named after what is left. Changes `data` in place."""
    for unit in data["units"].values():
        if unit["kind"] == "crossbar":
            _switch(unit, _CROSSBAR, off)
            adc: dict[str, Any] = unit["adc"] or {}
            thresholds: dict[str, Any] | None = adc.get("thresholds")
            devices: list[dict[str, Any]] = [*unit["cell"]["device"].values()]
            for device in devices + ([thresholds["device"]] if thresholds else []):
                for name in off:
                    for field in {*DEVICE.get(name, ())} & {*device}:
                        device[field] = 0.0 if isinstance(device[field], int | float) else None
        elif unit["kind"] == "gain_cell_attention":
            _switch(unit, _GAIN_CELLS, off)
    if "converters" in off:
        _drop_acams(data)
    if not off:
        return data
    left = [name for name in NON_IDEALITIES if name not in off]
    gone = [name for name in NON_IDEALITIES if name in off]
    data["name"] += (
        f" (only {' + '.join(left) or 'nothing'})" if len(left) < len(gone) else f" (without {' + '.join(gone)})"
    )
    data["notes"] = [*data["notes"], f"switched off: {', '.join(gone)}"]
    if "converters" in off:
        data["notes"].append("its converters are switched off, so what it costs is not what the chip costs")
    return data


def _drop_acams(data: dict[str, Any]) -> None:
    """Without converters there are no ACAMs to compute with: what they ran stays digital."""
    gone = [name for name, unit in data["units"].items() if unit["kind"] == "acam"]
    data["units"] = {name: unit for name, unit in data["units"].items() if name not in gone}
    data["policy"] = {kind: name for kind, name in data["policy"].items() if name not in gone}


def _switch(part: dict[str, Any], fields: _Fields, off: Collection[NonIdeality]) -> None:
    for name in off:
        for path, value in fields.get(name, {}).items():
            place, _, last = path.rpartition(".")
            owner = part[place] if place else part
            if owner is not None and last in owner:
                owner[last] = value
