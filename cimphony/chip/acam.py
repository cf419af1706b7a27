"""Analog content-addressable memory as data: a readout in place of the ADC, and the unit that works through it.

A column's analog sum is compared with the intervals stored in an ACAM; the rows that match say the bits of a code,
the code of any function of the sum. See NL-DPE (arXiv 2511.13950) and docs/papers/nl_dpe.md.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from cimphony.chip.devices import LogLinearDevice
from cimphony.chip.part import Component, Count, Node, NonNegative, Part, Positive, needs
from cimphony.chip.pricing import ACAM_ACTIONS, check_components

CodeBits = Annotated[int, Field(ge=2, le=10)]


class ThresholdLaw(Part):
    """Threshold voltage from conductance: V = exp(exponent ln G + offset) + base, G in uS (NL-DPE, equation 7)."""

    exponent: Positive = Field(default=0.50070001310524, description="of the conductance; the released constant")
    offset: float = Field(
        default=-3.756116078076023, description="natural logarithm of the part above base [V] at 1 uS"
    )
    base: float = Field(default=0.6835811044882486, description="threshold of a cell without conductance [V]")
    lowest: NonNegative = Field(default=0.6, description="lowest voltage on a data line [V]")
    highest: Positive = Field(default=1.0, description="highest voltage on a data line [V]")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.lowest >= self.highest:
            raise ValueError(f"lowest = {self.lowest} must be below highest = {self.highest}")
        return self


class Thresholds(Part):
    """How the bounds of the intervals are held: two memristors in each ACAM cell."""

    device: LogLinearDevice = Field(
        LogLinearDevice(),
        description="spread of programming and reading with its scale; stuck cells disable their row",
    )
    law: ThresholdLaw = ThresholdLaw()
    mapping: Literal["range", "abs_minmax"] = Field(
        "range",
        description="bounds to voltages: range: the input range over all voltages; abs_minmax: the magnitudes of the "
        "lower bounds and those of the upper bounds each over all voltages, signs held elsewhere, as released",
    )
    drawn: Literal["layer", "column"] = Field(
        "layer",
        description="errors of the ACAMs behind a layer: layer: the same in all its columns, as released; column: each "
        "column its own. Passes through identities and attention keep one draw for each of their functions",
    )


class AcamCell(Part):
    """What one cell of an ACAM, one interval, costs; a conversion searches them all."""

    energy: NonNegative = Field(description="energy of one search of one cell [J]")
    area: NonNegative = Field(description="area of one cell with its share of the periphery [m2]")
    node: Node | None = Field(None, description="node of energy and area [m]; none: the chip's own node")
    voltage: Positive | None = Field(None, description="supply voltage of the energy [V]; none: the chip's own")
    source: str = Field("", description="where the numbers come from")


class Acam(Part):
    """An ACAM at the foot of every column of outputs: the analog sum of a whole input becomes a code in one search."""

    kind: Literal["acam"] = "acam"
    bits: CodeBits = Field(default=8, description="bits of the code that comes out")
    code: Literal["gray", "binary"] = Field(
        default="gray", description="code of the stored intervals; Gray takes half the rows"
    )
    range: Literal["calibrated", "moving"] = Field(
        default="calibrated",
        description="inputs and outputs that the codes span: calibrated: the smallest to the largest seen in "
        "calibration; moving: an average over its batches with weight 0.95 on what was seen before",
    )
    quantile: Annotated[float, Field(gt=0.5, le=1)] = Field(
        default=1.0, description="calibrated only: share of what was seen that the range covers, at either end"
    )
    partial_sums: Literal["analog", "digital"] = Field(
        default="analog",
        description="a product over more inputs than an array has rows: analog: the blocks' sums meet in one ACAM, "
        "without loss; digital: each block has its own code by the identity, codes are added digitally, and a "
        "following function takes a second pass",
    )
    rows: Count | None = Field(
        default=None,
        description="cells of one ACAM over all bits, spares apart; none: as many as a function with one dip takes",
    )
    spare_rows: Annotated[int, Field(ge=0)] = Field(
        default=0, description="cells beside for each bit, which take over from rows with stuck cells"
    )
    thresholds: Thresholds | None = Field(default=None, description="none: intervals are held exactly")
    time: NonNegative = Field(default=0.0, description="from the last slice of an input to the code [s]")
    cell: AcamCell | None = Field(default=None, description="energy and area; none: not part of this description")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.rows is not None and self.rows < self.bits:
            raise ValueError(f"rows = {self.rows} is too few: every one of {self.bits} bits needs a row; or rows: null")
        needs(self, "quantile", "range", "calibrated")
        return self

    @property
    def cells(self) -> int:
        """Cells of one ACAM, spares included.

        Without `rows` as many as GELU and SiLU take, which fall and rise once: 132 at 8 bits in Gray code, where a
        monotone function takes 2^(bits-1); 262 in binary code, against 2^bits - 1.
        """
        needed = (1 << (self.bits - 1)) + 4 if self.code == "gray" else (1 << self.bits) + 6
        return (self.rows or needed) + self.spare_rows * self.bits


class AcamUnit(Part):
    """Functions of single numbers, and through log and exp also products and softmax, on identity matrices.

    A number goes through an array that holds the identity and comes out of its column's ACAM as a function's code.
    Products of activations are sign and exp(log |x| + log |y|), softmax is exp(s - max - log sum exp).
    """

    kind: Literal["acam"] = "acam"
    arrays: str = Field(
        description="the crossbar unit with ACAM readout whose arrays hold the identity: the one that stores weights, "
        "whose spare arrays are taken, or another one for this alone"
    )
    floor: Annotated[float, Field(gt=0, lt=1)] = Field(
        2.0**-8, description="what stands for zero before a logarithm, which has none"
    )
    floor_is: Literal["share", "added"] = Field(
        "share",
        description="share: magnitudes below this share of the largest in the log's range count as that much; added: "
        "added to every magnitude, as released with 1e-9",
    )
    log_scales: Literal["shared", "own"] = Field(
        "shared",
        description="shared: both operands' logs have one step, so codes can be added; own: each its own, as released",
    )
    packing: Literal["full", "vector"] = Field(
        "full",
        description="numbers in a pass: full: as many as an array has outputs; vector: those of one inner product",
    )
    traffic: NonNegative = Field(
        3.0,
        description="numbers moved between memory and arrays for every product of two numbers: both logs in, one value "
        "out, unless registers keep some",
    )
    bandwidth: Positive | None = Field(
        None, description="what memory moves to and from one array [bytes/s]; none: never what an array waits for"
    )
    components: dict[str, Component] = Field(
        {}, description="what the unit has beside the arrays, and what it costs: digital additions, signs, traffic"
    )
    source: str = Field("", description="where the numbers come from")

    @model_validator(mode="after")
    def _check(self) -> Self:
        needs(self, "log_scales", "floor_is", "added")  # equal shares have equal scales
        check_components(self.components, ACAM_ACTIONS, ("chip",))
        return self
