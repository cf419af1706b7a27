"""Models on chips: analog layers and the verbs that make, program, age and restore them."""

from cimphony.nn.attention import attention_layers
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
from cimphony.nn.ring import GainCellCache
from cimphony.nn.store import load_, save
from cimphony.nn.summary import Summary, summary, summary_rows
from cimphony.nn.tiles import Tiles

__all__ = [
    "AnalogConv1D",
    "AnalogConv2d",
    "AnalogLayer",
    "AnalogLinear",
    "GainCellAttention",
    "GainCellCache",
    "Summary",
    "Tiles",
    "age_",
    "analog_layers",
    "attention_layers",
    "calibrate",
    "convert_",
    "digital_layers",
    "is_converted",
    "load_",
    "program_",
    "restore_",
    "save",
    "summary",
    "summary_rows",
]
