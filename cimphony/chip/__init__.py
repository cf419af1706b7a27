"""The chip description: frozen, validated, torch-free. Named chips are in `cimphony/chips/*.yaml`."""

from cimphony.chip.chip import Chip, OperationKind, Unit, build_chip, differences
from cimphony.chip.crossbar import (
    Adc,
    Cell,
    CrossbarUnit,
    DoublingLaw,
    Encoding,
    EnergyLaw,
    InputCoding,
    LinearLaw,
    SurveyLaw,
    TableLaw,
)
from cimphony.chip.devices import Device, GaussianDevice, IdealDevice, PcmDevice, RramDevice, Stuck
from cimphony.chip.gain_cell import (
    CubicMultiplier,
    GainCell,
    GainCellAttentionUnit,
    GainCellNoise,
    LinearMultiplier,
    Multiplier,
    PulseCoding,
    TableMultiplier,
)
from cimphony.chip.load import chip_names, load_chip
from cimphony.chip.part import MODES, Component, Mode, Part
from cimphony.chip.processors import GpuUnit, Link, NorPimUnit, SpecialFunctionUnit

__all__ = [
    "MODES",
    "Adc",
    "Cell",
    "Chip",
    "Component",
    "CrossbarUnit",
    "CubicMultiplier",
    "Device",
    "DoublingLaw",
    "Encoding",
    "EnergyLaw",
    "GainCell",
    "GainCellAttentionUnit",
    "GainCellNoise",
    "GaussianDevice",
    "GpuUnit",
    "IdealDevice",
    "InputCoding",
    "LinearLaw",
    "LinearMultiplier",
    "Link",
    "Mode",
    "Multiplier",
    "NorPimUnit",
    "OperationKind",
    "Part",
    "PcmDevice",
    "PulseCoding",
    "RramDevice",
    "SpecialFunctionUnit",
    "Stuck",
    "SurveyLaw",
    "TableLaw",
    "TableMultiplier",
    "Unit",
    "build_chip",
    "chip_names",
    "differences",
    "load_chip",
]
