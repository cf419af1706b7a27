"""Digital hardware of activations: pipelines as data, their exact numbers, synthesizable Verilog, measured sizes."""

from cimphony.hardware.activations import (
    ACTIVATIONS,
    INPUT_FRACTION,
    OUTPUT_FRACTION,
    cordic,
    exp,
    lut,
    quad,
    sinc,
    taylor,
)
from cimphony.hardware.interval import Acam, acam
from cimphony.hardware.pipeline import Build, Pipeline, Stage, Wire
from cimphony.hardware.tools import TARGETS, all_inputs, simulate, synthesise
from cimphony.hardware.verilog import module, testbench

__all__ = [
    "ACTIVATIONS",
    "INPUT_FRACTION",
    "OUTPUT_FRACTION",
    "TARGETS",
    "Acam",
    "Build",
    "Pipeline",
    "Stage",
    "Wire",
    "acam",
    "all_inputs",
    "cordic",
    "exp",
    "lut",
    "module",
    "quad",
    "simulate",
    "sinc",
    "synthesise",
    "taylor",
    "testbench",
]
