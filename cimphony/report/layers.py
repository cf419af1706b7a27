"""What was applied to each layer, as a table; reads that differ only in fidelity share a row."""

from collections.abc import Iterable, Sequence
from typing import Any

from cimphony.report.tables import Table, plain
from cimphony.report.words import MISSING, number

_COLUMNS = ("Layer", "Size", "Runs on", "Cells", "Inputs", "Converter", "Device", "Reads", "Kernel")


def layers_table(caption: str, rows: Sequence[dict[str, Any]]) -> Table:
    """One line for each layer: where it runs, its cells, converters, noise and kernel, or why it stays digital."""
    together: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        together.setdefault(str(row["layer"]), []).append(row)
    return Table(caption, _COLUMNS, tuple(_line(name, same) for name, same in together.items()))


def _line(name: str, rows: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    row = rows[0]
    if row.get("runs_on") == "digital":
        return (name, MISSING, f"digital: {row.get('why', '')}", *(MISSING,) * 6)
    parts = [part for one in rows for part in one.get("parts", [])]
    converted = [part for part in parts if part.get("adc_bits") is not None]
    return (
        name,
        "\N{NO-BREAK SPACE}×\N{NO-BREAK SPACE}".join(str(row[key]) for key in ("rows", "columns") if key in row),
        str(row.get("runs_on", MISSING)),
        _each(map(_cells, parts)),
        _inputs(row),
        _each(map(_converter, converted)),
        _each(_device(part["device"]) for part in parts if "device" in part),
        _each(str(one["fidelity"]) for one in rows if one.get("fidelity")),
        _each(str(part["kernel"]) for part in parts if part.get("kernel")),
    )


def _each(texts: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(texts)) or MISSING


def _cells(part: dict[str, Any]) -> str:
    axis = "columns" if "columns" in part else "rows"
    return f"{part.get(axis, '')} {axis}, {part.get('mode', '')}, {len(part.get('slices', ()))} slices"


def _inputs(row: dict[str, Any]) -> str:
    coding = row.get("input") or {}
    if not coding.get("bits"):
        return "not quantised"
    fixed = row.get("input_range") if coding.get("range") != "token" else None
    limit = f" ±{number(fixed)}" if isinstance(fixed, (int, float)) else ""
    limit += " of its siblings, as no token reached it" if row.get("borrowed") else ""
    return f"{coding['bits']} bits, {str(coding.get('coding', '')).replace('_', ' ')}, by {coding.get('range')}{limit}"


def _converter(part: dict[str, Any]) -> str:
    low, high = part.get("adc_codes", ("", ""))
    return f"{part['adc_bits']} bits, step {number(part.get('adc_step_levels'))}, codes {low} to {high}"


def _device(device: dict[str, Any]) -> str:
    rest = {key: value for key, value in device.items() if key != "kind" and value}
    return f"{device['kind']} ({plain(rest)})" if rest else str(device["kind"])
