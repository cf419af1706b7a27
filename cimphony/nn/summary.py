"""What was really applied, layer by layer; what stayed digital and why."""

from typing import Any

from rich.console import Console
from rich.table import Table
from torch import nn

from cimphony.nn.acam import AcamActivation, acam_activations
from cimphony.nn.attention import attention_layers, has_numbers
from cimphony.nn.convert import analog_layers, digital_layers, matrix_shape
from cimphony.nn.layers import AnalogLayer
from cimphony.units import format_count


class Summary:
    """A table that prints itself; `rows` holds the same as data."""

    def __init__(self, title: str, rows: list[dict[str, Any]]) -> None:
        self.title, self.rows = title, rows

    def table(self) -> Table:
        """The rich table."""
        table = Table(title=self.title, title_justify="left")
        for column in ("layer", "shape", "runs on", "cells", "inputs", "converter", "device", "fidelity", "kernel"):
            table.add_column(column, overflow="fold")
        for row in self.rows:
            table.add_row(*_cells_of(row))
        return table

    def __str__(self) -> str:
        console = Console(width=160)
        with console.capture() as capture:
            console.print(self.table())
        return capture.get()

    __repr__ = __str__


def summary(model: nn.Module) -> Summary:
    """What the chip does to this model: unit, device, slices, converters and ranges, fidelity, kernel, by layer."""
    rows = summary_rows(model)
    layers, attention = analog_layers(model), attention_layers(model)
    chips = [layer.tiles[0].chip.name for layer in layers.values()] + [one.chip.name for one in attention.values()]
    also = f", {len(attention)} layers of attention" if attention else ""
    return Summary(
        f"{type(model).__name__} on {chips[0] if chips else 'digital'}: {len(layers)} analog layers{also}", rows
    )


def summary_rows(model: nn.Module) -> list[dict[str, Any]]:
    """One dictionary for each layer with weights: what is applied, or why it stays digital."""
    rows: list[dict[str, Any]] = []
    stayed = digital_layers(model)
    layers, attention = analog_layers(model), attention_layers(model)
    passes = {name: one for name, one in acam_activations(model).items() if one.done_by or one.readout}
    for name, module in model.named_modules():
        if name in layers:
            rows.append(_analog_row(name, module, layers[name]))
        elif name in stayed:
            rows.append(_digital_row(name, stayed[name]))
        elif name in passes:
            rows.append(_pass_row(name, passes[name]))
        elif name in attention:
            rows.append({"layer": name, "runs_on": attention[name].unit_name, **attention[name].describe()})
        elif not layers and isinstance(module, (nn.Linear, nn.Conv2d)):
            rows.append(_digital_row(name, "not converted"))
        elif isinstance(module, nn.Embedding):
            rows.append(_digital_row(name, "a table look-up, exact"))
    if layers or attention:
        chip = (next(iter(layers.values())).tiles[0] if layers else next(iter(attention.values()))).chip
        found = "" if attention or not has_numbers(chip) else "; no attention was found to put on the chip"
        rows.append(_digital_row("everything else", f"computed exactly in the model's own precision{found}"))
    return rows


def _digital_row(name: str, why: str) -> dict[str, Any]:
    return {"layer": name, "runs_on": "digital", "why": why}


def _pass_row(name: str, activation: AcamActivation) -> dict[str, Any]:
    """An activation that ACAMs compute: behind a layer, or in a pass of its own."""
    if activation.done_by is not None:
        return {"layer": name, "runs_on": "acam", "why": f"held by the ACAMs of {activation.done_by}"}
    assert activation.readout is not None
    found = activation.readout.describe()
    return {"layer": name, "runs_on": "acam", "why": f"a pass of its own, {found['bits']} bits", "acam": found}


def _analog_row(name: str, module: nn.Module, layer: AnalogLayer) -> dict[str, Any]:
    first = layer.tiles[0]
    rows, columns, groups = matrix_shape(module)
    return {
        "layer": name,
        "runs_on": first.unit_name,
        "kind": type(module).__name__,
        "rows": rows,
        "columns": columns,
        "groups": groups,
        "encoding": first.unit.encoding.model_dump(),
        "input": first.unit.input.model_dump(),
        **first.describe(),
        **({} if layer.readout is None else {"acam": layer.readout.describe(), "blocks": len(first.blocks)}),
    }


def _cells_of(row: dict[str, Any]) -> list[str]:
    if "why" in row:
        return [row["layer"], "", f"{row['runs_on']}: {row['why']}", *[""] * 6]
    if "attention" in row:
        return [row["layer"], *row["attention"]]
    parts = row.get("parts", [])
    coding = row["input"]
    limit = "" if coding["range"] == "token" or row["input_range"] is None else f" ±{row['input_range']:.3g}"
    limit += " of its siblings (no token reached it)" if row.get("borrowed") else ""
    groups = f" x {row['groups']}" if row["groups"] > 1 else ""
    copies = f", {row['redundancy']} copies averaged" if row["redundancy"] > 1 else ""
    return [
        row["layer"],
        f"{format_count(row['rows'])} x {format_count(row['columns'])}{groups}",
        row["runs_on"],
        ("; ".join(_cells(part) for part in parts) or row["state"]) + copies,
        f"{coding['bits']} bits {coding['coding']}, by {coding['range']}{limit}" if coding["bits"] else "not quantised",
        _acam(row) if "acam" in row else "; ".join(_converter(part) for part in parts),
        "; ".join(dict.fromkeys(_device(part["device"]) for part in parts)),
        row["fidelity"],
        "; ".join(dict.fromkeys(part["kernel"] for part in parts)),
    ]


def _cells(part: dict[str, Any]) -> str:
    axis = "columns" if "columns" in part else "rows"
    return f"{part[axis]} {part['mode']} {axis} of {len(part['slices'])} slices"


def _acam(row: dict[str, Any]) -> str:
    acam = row["acam"]
    noise = "exact" if acam["noise_scale"] is None else f"noise x {acam['noise_scale']:g}"
    blocks = f", {row['blocks']} blocks added digitally" if row["blocks"] else ""
    return f"ACAM of {acam['function']}, {acam['bits']} bits {acam['code']}, {acam['rows']} rows, {noise}{blocks}"


def _converter(part: dict[str, Any]) -> str:
    if part["adc_bits"] is None:
        return "none"
    low, high = part["adc_codes"]
    return f"{part['adc_bits']} bits, step {part['adc_step_levels']:.4g}, codes {low} to {high}"


def _device(device: dict[str, Any]) -> str:
    settings = ", ".join(f"{key} {value:g}" for key, value in device.items() if isinstance(value, float) and value)
    return f"{device['kind']} ({settings})" if settings else device["kind"]
