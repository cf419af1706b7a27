"""The crossbar unit as data: cells, encoding of the weights, input coding, converter."""

from typing import Annotated, Any, Literal, Self, cast

from pydantic import BeforeValidator, Field, model_validator

from cimphony.chip.acam import Acam
from cimphony.chip.devices import Device
from cimphony.chip.part import (
    MODES,
    PER_MODE,
    Component,
    Count,
    Fraction,
    Mode,
    Node,
    NonNegative,
    Part,
    Positive,
    needs,
)
from cimphony.chip.pricing import CROSSBAR_ACTIONS, check_components

CellBits = Annotated[int, Field(ge=1, le=8)]
ConverterBits = Annotated[int, Field(ge=1, le=16)]


def _bits_by_mode(value: Any) -> Any:
    """A plain number of bits is one mode: SLC for 1 bit, MLC for more."""
    if isinstance(value, int) and not isinstance(value, bool):
        return {"slc" if value == 1 else "mlc": value}
    return value


class Write(Part):
    """What it takes to program a cell, with write-and-verify pulses."""

    pulses: Annotated[dict[Mode, Positive], PER_MODE] = Field(description="mean pulses until a cell holds its level")
    energy: NonNegative = Field(description="energy of one pulse with its verification [J]")
    time: Positive = Field(description="time of one pulse with its verification [s]")
    parallel: Count = Field(1, description="cells of one array written at once")
    endurance: Positive | None = Field(None, description="writes a cell survives; none: not stated")
    source: str = Field("", description="where the numbers come from")


class Cell(Part):
    """A memory cell: its modes and the device behind each."""

    bits: Annotated[dict[Mode, CellBits], BeforeValidator(_bits_by_mode), Field(min_length=1)] = Field(
        description="bits a cell holds in each mode"
    )
    device: Annotated[dict[Mode, Device], PER_MODE] = Field(description="the device, one for all modes or one per mode")
    slc_rate: Fraction | None = Field(
        None, description="share of a layer's output columns kept in SLC cells where a chip has both modes"
    )
    drift_compensation: Literal["global"] | None = Field(
        None,
        description="global: a layer's outputs are scaled digitally by what its mean conductance lost with age; "
        "none: drift reaches the outputs",
    )
    write: Write | None = Field(None, description="programming; none: not part of this description")

    @model_validator(mode="after")
    def _check(self) -> Self:
        both = len(self.bits) == len(MODES)
        if both and self.slc_rate is None:
            raise ValueError("slc_rate is needed where a cell has both modes, slc and mlc; choose 0 to 1")
        if not both and self.slc_rate is not None:
            raise ValueError("slc_rate makes no sense with one cell mode; remove it, or give bits for slc and mlc")
        missing = [mode for mode in self.bits if mode not in self.device]
        if missing:
            raise ValueError(f"device is missing for mode {missing[0]}; give one device per mode in bits")
        return self


class Encoding(Part):
    """How a signed weight integer becomes unsigned cell levels."""

    weights: Literal[
        "twos_complement", "offset", "differential", "differential_residual", "signed_digits", "binary"
    ] = Field(
        description="twos_complement: bit slices, the top one negative; offset: w + 2^(bits-1), the offset subtracted "
        "digitally; differential: positive and negative cells; differential_residual: a second pair stores the write "
        "error of the first, times residual_gain (NL-DPE); signed_digits: two's complement whose top digit keeps "
        "its sign in a pair of cells (how HyFlexPIM's released simulation disturbs weights; without adc only); "
        "binary: -1 and +1 as levels 0 and 1 of one cell"
    )
    bits: Annotated[int, Field(ge=1, le=16)] | None = Field(
        8, description="bits of a weight with its sign; 1 for binary weights only; none: not quantised"
    )
    scale: Literal["tensor", "column"] = Field(
        "column", description="one scale per weight matrix, or one per output column"
    )
    flip: bool = Field(
        False, description="store a column inverted where that lowers its largest sum (ISAAC); undone digitally"
    )
    subtract: Literal["analog", "digital"] = Field(
        "analog", description="differential only: currents subtracted before one signed converter, or codes after two"
    )

    residual_gain: Annotated[int, Field(ge=1, le=1024)] = Field(
        64,
        description="differential_residual only: how many times larger the write error is stored than it is, a power "
        "of two; an error beyond the top level of a cell clips",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.residual_gain & (self.residual_gain - 1):
            raise ValueError(f"residual_gain = {self.residual_gain} is no power of two; choose 1, 2, 4, ... 1024")
        needs(self, "residual_gain", "weights", "differential_residual")
        needs(self, "subtract", "weights", "differential")
        needs(self, "flip", "weights", "twos_complement", "offset", "binary")
        if (self.bits == 1) != (self.weights == "binary"):
            raise ValueError(f"bits = {self.bits} with weights: {self.weights}: binary takes 1 bit, the others 2 to 16")
        return self


class InputCoding(Part):
    """How activations reach the rows."""

    bits: Annotated[int, Field(ge=1, le=16)] | None = Field(
        8, description="bits of an input with its sign; none: not quantised"
    )
    signed: bool = Field(
        True, description="false: inputs are never negative, no sign bit is read; bit_serial only, from 1 bit"
    )
    coding: Literal["bit_serial", "multi_bit", "pulse_width"] = Field(
        "bit_serial",
        description="bit_serial: one bit of the two's complement a read; multi_bit: signed digits of slice_bits a "
        "read; pulse_width: the whole signed magnitude as one pulse",
    )
    slice_bits: Annotated[int, Field(ge=1, le=8)] = Field(1, description="multi_bit only: bits of one digit")
    range: Literal["static", "token"] = Field(
        "token",
        description="static: one range per layer, learned by calibration; token: the largest value of each token",
    )
    quantile: Annotated[float, Field(gt=0.5, le=1)] = Field(
        1.0, description="static only: share of the calibration inputs that the range covers"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        needs(self, "signed", "coding", "bit_serial")
        needs(self, "slice_bits", "coding", "multi_bit")
        needs(self, "quantile", "range", "static")
        if self.signed and self.bits == 1:
            raise ValueError("bits = 1 leaves nothing beside the sign; give 2 or more, or signed: false")
        return self


class DoublingLaw(Part):
    """Energy doubles with every bit, as in a capacitor array limited by matching (HyFlexPIM, ISAAC)."""

    kind: Literal["doubling"] = "doubling"
    bits: ConverterBits = Field(description="resolution at which the energy is known")
    energy: NonNegative = Field(description="energy of one conversion at that resolution [J]")


class LinearLaw(Part):
    """Energy grows in proportion to the bits (PUMA)."""

    kind: Literal["linear"] = "linear"
    energy_per_bit: NonNegative = Field(description="energy of one conversion per bit [J]")


class SurveyLaw(Part):
    """Best-case regression over the public ADC survey (arXiv 2404.06553), at the converter's node and rate."""

    kind: Literal["survey"] = "survey"


class TableLaw(Part):
    """Energies read from a table, no interpolation."""

    kind: Literal["table"] = "table"
    energy: dict[ConverterBits, NonNegative] = Field(description="energy of one conversion [J] by bits", min_length=1)
    source: str = Field("", description="where the table comes from")


EnergyLaw = Annotated[DoublingLaw | LinearLaw | SurveyLaw | TableLaw, Field(discriminator="kind")]


class Adc(Part):
    """The analog-to-digital converter at the foot of the columns."""

    kind: Literal["sar", "flash", "ramp", "neuron"] = Field(
        "sar", description="the circuit, for the reader: what it takes is in the unit's cycle, energy_law and area"
    )
    bits: Annotated[dict[Mode, ConverterBits], PER_MODE] = Field(description="resolution for each cell mode")
    range: Literal["level", "full_scale", "calibrated"] = Field(
        "level",
        description="level: one code per cell level, saturating above; full_scale: the largest possible sum fits; "
        "calibrated: the largest sum seen in calibration fits",
    )
    quantile: Annotated[float, Field(gt=0.5, le=1)] = Field(
        1.0, description="calibrated only: share of the calibration sums that the range covers"
    )
    columns_per_adc: Count = Field(1, description="columns that share one converter")
    energy_law: EnergyLaw | None = Field(None, description="energy of a conversion; none: not part of this description")
    area: NonNegative | None = Field(
        None, description="area of one converter [m2]; none: from the survey where that is the law, else not counted"
    )
    node: Node | None = Field(None, description="node of energy and area [m]; none: the chip's own node")
    voltage: Positive | None = Field(None, description="supply voltage of the energy [V]; none: the chip's own")
    source: str = Field("", description="where the numbers come from")

    @model_validator(mode="after")
    def _check(self) -> Self:
        needs(self, "quantile", "range", "calibrated")
        return self


def _sar_unless_said(value: object) -> object:
    """A converter without a kind is an ordinary one."""
    if not isinstance(value, dict) or "kind" in value:
        return cast(object, value)
    return {"kind": "sar", **cast(dict[str, Any], value)}


Readout = Annotated[Adc | Acam, Field(discriminator="kind"), BeforeValidator(_sar_unless_said)]


class Schedule(Part):
    """How the work is spread over the arrays and over time."""

    copies: Literal["one", "whole", "ideal"] = Field(
        "one",
        description="spare arrays: one: stay empty; whole: hold whole copies of the slowest layers; ideal: hold "
        "fractional copies in perfect balance, an upper bound",
    )
    overlap: bool = Field(
        False, description="units of a block work on different requests at once; false: one request at a time per block"
    )


class Wires(Part):
    """Resistance of an array's metal: voltage is lost along rows and columns (IR drop).

    Bit slices and the sides of a pair are taken to fill arrays of their own.
    """

    row: NonNegative = Field(0.0, description="of a row's wire from one cell to the next [ohm]")
    column: NonNegative = Field(0.0, description="of a column's wire from one cell to the next [ohm]")
    g_min: NonNegative | None = Field(
        None, description="conductance of a cell at level 0 [S]; none: the device's own, or 0"
    )
    g_max: Positive | None = Field(
        None, description="conductance of a cell at its top level [S]; none: the device's own"
    )

    def conductances(self, device: Device) -> tuple[float, float]:
        """Lowest and highest of a cell [S]."""
        low, high = getattr(device, "g_min", self.g_min), getattr(device, "g_max", self.g_max)
        return low or 0.0, high or 0.0


class CrossbarUnit(Part):
    """Arrays of memory cells that multiply stored weights with inputs on the rows."""

    kind: Literal["crossbar"] = "crossbar"
    rows: Count = Field(description="rows of one array = inputs summed before conversion")
    columns: Count = Field(description="columns of cells of one array")
    cell: Cell
    encoding: Encoding
    input: InputCoding
    adc: Readout | None = Field(
        None, description="an ADC, or an ACAM; none: an ideal converter, every sum passes unchanged"
    )
    fidelity: Literal["exact", "effective"] = Field(
        "exact", description="exact: every read is converted; effective: one product with the noisy weights"
    )
    wires: Wires | None = Field(None, description="voltage lost along wires; none: wires are perfect")
    cycle: Positive = Field(100e-9, description="time of one array read with its conversions [s]")
    count: dict[str, Count] = Field(
        {"array": 1}, description="how the unit is nested, innermost first: arrays in a module, modules in a pu, ..."
    )
    components: dict[str, Component] = Field({}, description="what the unit is built of and what it costs")
    schedule: Schedule = Schedule(copies="one", overlap=False)

    @property
    def converter(self) -> Adc | None:
        """The ADC; None where columns are read ideally or by an ACAM."""
        return self.adc if isinstance(self.adc, Adc) else None

    @property
    def acam(self) -> Acam | None:
        """The ACAM that reads the columns, if one does."""
        return self.adc if isinstance(self.adc, Acam) else None

    @model_validator(mode="after")
    def _check_components(self) -> Self:
        check_components(self.components, CROSSBAR_ACTIONS, (*self.count, "row", "column", "adc", "chip"))
        return self

    @model_validator(mode="after")
    def _check_wires(self) -> Self:
        if self.wires is None:
            return self
        devices = self.cell.device.values()
        bare = [device.kind for device in devices if not hasattr(device, "g_max")]
        if bare and self.wires.g_max is None:
            raise ValueError(
                f"wires need conductances, a device of kind {bare[0]} has levels alone: give wires.g_max, that of a "
                "cell's top level [S], or wires: null"
            )
        if not bare and (self.wires.g_min is not None or self.wires.g_max is not None):
            kinds = ", ".join(sorted({device.kind for device in devices}))
            raise ValueError(f"devices ({kinds}) have conductances of their own: leave out wires.g_min and wires.g_max")
        for low, high in map(self.wires.conductances, devices):
            if low >= high:
                raise ValueError(f"wires.g_min = {low:g} S must be below the highest conductance, {high:g} S")
        return self

    @model_validator(mode="after")
    def _check_acam(self) -> Self:
        if self.acam is None:
            return self
        weights, bits = self.encoding.weights, self.encoding.bits
        if weights not in ("differential", "differential_residual") or self.encoding.subtract != "analog":
            raise ValueError(
                f"an acam reads the whole signed sum of a column, encoding.weights: {weights} has none; use "
                "differential or differential_residual, with subtract: analog"
            )
        if len(self.cell.bits) > 1 or (bits is not None and max(self.cell.bits.values()) != bits - 1):
            raise ValueError(
                f"cell.bits = {self.cell.bits}: an acam needs a weight's whole magnitude in one cell; give cell.bits "
                f"= {(bits or 8) - 1}, one bit below encoding.bits"
            )
        return self

    @model_validator(mode="after")
    def _check(self) -> Self:
        quantised = self.encoding.bits is not None and self.input.bits is not None
        if self.fidelity == "exact" and not quantised:
            raise ValueError(
                "fidelity exact reads integers: give encoding.bits and input.bits, or choose fidelity: effective"
            )
        if self.converter is not None and self.encoding.weights == "signed_digits":
            raise ValueError("encoding.weights: signed_digits has no converter model; use adc: null or twos_complement")
        if self.converter is not None and not quantised:
            raise ValueError("an adc converts sums of integers: give encoding.bits and input.bits, or adc: null")
        if self.encoding.bits is None and self.encoding.weights != "differential":
            raise ValueError("unquantised weights (encoding.bits: null) need encoding.weights: differential")
        if self.encoding.bits is not None:
            for mode, bits in self.cell.bits.items():
                if self.encoding.weights == "binary":
                    if bits != 1:
                        raise ValueError(f"cell.bits.{mode} = {bits}: encoding.weights binary needs cells of 1 bit")
                elif bits >= self.encoding.bits:
                    raise ValueError(
                        f"cell.bits.{mode} = {bits} must be below encoding.bits = {self.encoding.bits}, "
                        "which counts the sign"
                    )
        return self
