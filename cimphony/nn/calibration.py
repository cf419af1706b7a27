"""What calibration taught a converted model, apart from it: a model put on chips anew can keep its ranges.

Weights tuned on chips have come to fit the ranges they were tuned with; calibrating anew would undo that.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, get_args

import torch
from torch import Tensor, nn

from cimphony.chip import MODES, Mode
from cimphony.errors import DataError
from cimphony.nn.acam import acam_state, restore_acams
from cimphony.nn.attention import NAME
from cimphony.nn.convert import analog_layers, converted_layers
from cimphony.nn.layers import AnalogLayer
from cimphony.nn.programmed import Assignment, Axis
from cimphony.nn.tiles import Tiles


@dataclass(frozen=True)
class Calibration:
    """Ranges and choices of a converted model; `calibration_of` takes them, `recalibrate_` gives them back."""

    ranges: dict[str, Tensor]  # float64 `LAYER|group|input` and `LAYER|group|MODE`, int64 indices of assigned modes
    acams: dict[str, Any]  # plain data
    attention: dict[str, Tensor]  # of attention on a chip, by name in the state dict

    @property
    def layers(self) -> list[str]:
        """The layers that were on the chip."""
        return sorted({key.partition("|")[0] for key in self.ranges} | set(self.acams["layers"]))

    @property
    def complete(self) -> bool:
        """Whether there is anything to keep."""
        spans = [span for span, _ in self.acams["layers"].values()]
        return bool(self.ranges) and None not in spans


def calibration_of(model: nn.Module) -> Calibration:
    """What a converted model has learned: input and converter ranges, fused activations, scalers, chosen modes."""
    layers = converted_layers(model, "calibration_of")
    attention = {name: value for name, value in model.state_dict().items() if f".{NAME}." in name}
    return Calibration(_ranges(layers), acam_state(model, layers), attention)


def recalibrate_(model: nn.Module, calibration: Calibration) -> nn.Module:
    """Give a freshly converted model what it, or its like, had learned. DataError where the layers are others."""
    layers = analog_layers(model)
    behind = {name for name, layer in layers.items() if layer.readout is not None}
    odd = {key.partition("|")[0] for key in calibration.ranges} - set(layers) or behind ^ set(
        calibration.acams["layers"]
    )
    if odd:
        raise DataError(f"the calibration is of another model or chip: layer {min(odd)} is not on both alike")
    if calibration.attention:
        model.load_state_dict(calibration.attention, strict=False)
    _restore_ranges(layers, calibration.ranges)
    restore_acams(model, layers, calibration.acams)
    return model


def _by_key(layers: dict[str, AnalogLayer]) -> Iterator[tuple[str, Tiles]]:
    """All tiles, each with what the names of its tensors begin with."""
    for name, layer in layers.items():
        yield from ((f"{name}|{group}|", tiles) for group, tiles in enumerate(layer.tiles))


def _ranges(layers: dict[str, AnalogLayer]) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for key, tiles in _by_key(layers):
        if tiles.input_range is not None:
            tensors[key + "input"] = torch.tensor(tiles.input_range, dtype=torch.float64)
        if tiles.borrowed:
            tensors[key + "borrowed"] = torch.tensor(True)
        for mode, value in tiles.sum_range.items():
            tensors[key + mode] = torch.tensor(value, dtype=torch.float64)
        if tiles.assignment is not None:
            for mode, indices in tiles.assignment.modes.items():
                tensors[f"{key}{tiles.assignment.axis} {mode}"] = indices.clone()
    return tensors


def _restore_ranges(layers: dict[str, AnalogLayer], tensors: dict[str, Tensor]) -> None:
    for key, tiles in _by_key(layers):
        if key + "input" in tensors:
            tiles.input_range = float(tensors[key + "input"])
        tiles.borrowed = key + "borrowed" in tensors
        for mode in tiles.unit.cell.bits:
            if key + mode in tensors:
                tiles.sum_range[mode] = float(tensors[key + mode])
        for axis in get_args(Axis):
            modes: dict[Mode, Tensor] = {
                mode: tensors[name] for mode in MODES if (name := f"{key}{axis} {mode}") in tensors
            }
            if modes:
                tiles.assignment = Assignment(axis, modes)
