"""Models on chips: analog layers and the verbs that make, program, age and restore them."""

from typing import TYPE_CHECKING, Any

from cimphony.nn.attention import attention_layers
from cimphony.nn.calibration import Calibration, calibration_of, recalibrate_
from cimphony.nn.convert import (
    age_,
    analog_layers,
    calibrate,
    convert_,
    digital_layers,
    is_converted,
    program_,
    restore_,
)
from cimphony.nn.gain_cell import GainCellAttention
from cimphony.nn.layers import AnalogConv1D, AnalogConv2d, AnalogLayer, AnalogLinear
from cimphony.nn.store import load_, load_calibration, save
from cimphony.nn.summary import Summary, summary, summary_rows
from cimphony.nn.tiles import Tiles

if TYPE_CHECKING:
    from cimphony.nn.ring import GainCellCache

__all__ = [
    "AnalogConv1D",
    "AnalogConv2d",
    "AnalogLayer",
    "AnalogLinear",
    "Calibration",
    "GainCellAttention",
    "GainCellCache",
    "Summary",
    "Tiles",
    "age_",
    "analog_layers",
    "attention_layers",
    "calibrate",
    "calibration_of",
    "convert_",
    "digital_layers",
    "is_converted",
    "load_",
    "load_calibration",
    "program_",
    "recalibrate_",
    "restore_",
    "save",
    "summary",
    "summary_rows",
]


def __getattr__(name: str) -> Any:
    if name == "GainCellCache":  # a cache of transformers', which takes seconds to import
        from cimphony.nn.ring import GainCellCache

        return GainCellCache
    raise AttributeError(f"module 'cimphony.nn' has no attribute {name!r}")
