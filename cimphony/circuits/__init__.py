"""Circuits: encoding, converters, programmed cells and the reference read of a crossbar."""

from cimphony.circuits.cells import Cells, continuous, write
from cimphony.circuits.converter import Converter, converter, quantise_inputs
from cimphony.circuits.crossbar import corrections, reference_read
from cimphony.circuits.encoding import decode, encode, quantise_weights, round_half_up
from cimphony.circuits.read import compact, kernel_name, largest_sum, read

__all__ = [
    "Cells",
    "Converter",
    "compact",
    "continuous",
    "converter",
    "corrections",
    "decode",
    "encode",
    "kernel_name",
    "largest_sum",
    "quantise_inputs",
    "quantise_weights",
    "read",
    "reference_read",
    "round_half_up",
    "write",
]
