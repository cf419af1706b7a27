"""Converters: inputs to integers and their slices, sums to codes."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from cimphony.chip import Adc, CrossbarUnit, InputCoding, Mode
from cimphony.errors import DataError
from cimphony.mapping import input_top

_GAIN_BITS = 15


@dataclass(frozen=True)
class Converter:
    """code = clamp((sum * multiplier + half) >> shift, low, high): round half up in integer arithmetic.

    `sum` counts grid steps (a level is 2^fraction_bits of them). The gain multiplier / 2^shift has 15 bits; the
    step of a code is exactly 2^shift / multiplier grid steps, so the gain's rounding is a gain, never an error.
    """

    multiplier: int
    shift: int
    low: int | None  # None: nothing is clamped
    high: int | None

    @property
    def step(self) -> float:
        """Grid steps of one code."""
        return 2.0**self.shift / self.multiplier

    def convert(self, sums: Tensor) -> Tensor:
        """Codes (int64) of sums (int64)."""
        half = (1 << self.shift) >> 1
        codes = (sums * self.multiplier + half) >> self.shift
        return codes if self.low is None else codes.clamp(self.low, self.high)


IDEAL = Converter(multiplier=1, shift=0, low=None, high=None)


def converter(unit: CrossbarUnit, mode: Mode, fraction_bits: int, largest: float | None) -> Converter:
    """The converter of a unit for columns in one cell mode.

    Args:
        fraction_bits: a level is 2^fraction_bits grid steps.
        largest: largest sum seen in calibration, in levels; needed for range `calibrated` only.
    """
    if unit.converter is None:
        return IDEAL
    signed = is_signed(unit)
    bits = unit.converter.bits[mode]
    low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
    step = 2.0**fraction_bits * levels_per_code(unit, unit.converter, mode, max(high, 1), largest)
    multiplier, shift = _gain(max(step, 1.0))
    return Converter(multiplier, shift, low, high)


def levels_per_code(unit: CrossbarUnit, adc: Adc, mode: Mode, codes: int, largest: float | None) -> float:
    """Levels between two codes under the converter's range policy; never finer than a level unless calibrated."""
    if adc.range == "level":
        return 1.0
    if adc.range == "full_scale":
        top = (1 << unit.cell.bits[mode]) - 1
        return max(1.0, unit.rows * top * input_top(unit.input) / codes)
    assert largest is not None
    return max(largest, 1.0) / codes


def is_signed(unit: CrossbarUnit) -> bool:
    """Whether a column sum can be negative: signed cells, or signed input digits."""
    pair = "differential" in unit.encoding.weights and unit.encoding.subtract == "analog"
    return pair or unit.input.coding != "bit_serial"


def _gain(step: float) -> tuple[int, int]:
    """Multiplier and shift with multiplier / 2^shift nearest to 1 / step; exact for powers of two."""
    mantissa, exponent = math.frexp(step)  # step = mantissa * 2^exponent, mantissa in [0.5, 1)
    if mantissa == 0.5:
        return 1, exponent - 1
    shift = exponent + _GAIN_BITS - 1
    return round(2.0**shift / step), shift


def quantise_inputs(
    inputs: Tensor, coding: InputCoding, largest: float | None, layer: str = ""
) -> tuple[Tensor, Tensor]:
    """Inputs [token, row] as integers (same dtype) and their scale [token, 1].

    The range is the largest magnitude of each token, or `largest` (static, from calibration; beyond it clips).
    Raises DataError for negative inputs where the coding has no sign.
    """
    assert coding.bits is not None
    top = 2 ** (coding.bits - coding.signed) - 1
    if not coding.signed and bool((inputs < 0).any()):
        where = f"layer {layer}: its inputs" if layer else "inputs"
        raise DataError(
            f"{where} are negative, but the chip's input.signed is false: convert only layers behind a ReLU"
        )
    if coding.range == "token":
        peak = inputs.abs().amax(dim=1, keepdim=True)
    else:
        assert largest is not None
        peak = inputs.new_full((inputs.shape[0], 1), largest)
    scale = torch.where(peak > 0, peak / top, 1.0)
    return inputs.div(scale).add_(0.5).floor_().clamp_(-top, top), scale  # rounds half up


def input_digits(integers: Tensor, coding: InputCoding, index: int) -> Tensor:
    """Digit `index` of integers [token, row] (int64): what the rows see during one read."""
    if coding.coding == "bit_serial":
        return (integers >> index) & 1
    if coding.coding == "pulse_width":
        return integers
    digits = (integers.abs() >> (index * coding.slice_bits)) & ((1 << coding.slice_bits) - 1)
    return digits * integers.sign()
