"""The gain-cell attention unit as data: both products of attention in charge memories, with the activation between.

Keys and values are stored as capacitor voltages, queries arrive as pulse widths. See docs/gain_cell_attention.md.
"""

import math
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from cimphony.chip.part import Component, Count, NonNegative, Part, Positive
from cimphony.chip.pricing import GAIN_CELL_ACTIONS, check_components

Levels = Annotated[int, Field(ge=2, le=1024)]


class CubicMultiplier(Part):
    """Cell current as a polynomial in the stored voltage, third order (paper's equation 4)."""

    kind: Literal["cubic"] = "cubic"
    coefficients: list[list[float]] = Field(
        min_length=4,
        max_length=4,
        description="C[i][j], 4 rows of 4, 3, 2 and 1: current = sum of C[i][j] y^i V^j [A/V^(i+j)], where y is the "
        "stored voltage above the middle of the supply and V the input voltage",
    )
    input_voltage: Positive = Field(0.9, description="height of the input pulses [V]; a fit holds at its own only")
    slope: Positive | None = Field(
        None, description="gradients are those of this straight line [A/V]; none: those of the polynomial"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        lengths = [len(row) for row in self.coefficients]
        if lengths != [4, 3, 2, 1]:
            raise ValueError(f"coefficients has rows of {lengths}; give 4, 3, 2 and 1 of them, orders i + j up to 3")
        return self

    @property
    def polynomial(self) -> tuple[float, ...]:
        """Current [A] by powers of the voltage above the middle of the supply, lowest first."""
        return tuple(sum(c * self.input_voltage**j for j, c in enumerate(row)) for row in self.coefficients)


class LinearMultiplier(Part):
    """Cell current in proportion to the stored voltage above the middle of the supply."""

    kind: Literal["linear"] = "linear"
    slope: Positive = Field(description="[A/V]")

    @property
    def polynomial(self) -> tuple[float, ...]:
        """Current [A] by powers of the voltage above the middle of the supply, lowest first."""
        return (0.0, self.slope)


class TableMultiplier(Part):
    """Cell current from a table over the stored voltage, straight lines between the points."""

    kind: Literal["table"] = "table"
    voltage: list[float] = Field(min_length=2, description="stored voltages, rising [V]")
    current: list[float] = Field(min_length=2, description="current of a cell while its input is on [A]")
    slope: Positive | None = Field(
        None, description="gradients are those of this straight line [A/V]; none: those of the table"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(self.voltage) != len(self.current):
            raise ValueError(f"voltage has {len(self.voltage)} points and current {len(self.current)}; give as many")
        if any(high <= low for low, high in zip(self.voltage, self.voltage[1:], strict=False)):
            raise ValueError("voltage must rise from point to point")
        return self


Multiplier = Annotated[CubicMultiplier | LinearMultiplier | TableMultiplier, Field(discriminator="kind")]


class GainCell(Part):
    """A charge memory cell: voltage range, current and leakage."""

    supply: Positive = Field(0.9, description="stored voltages lie between 0 and this [V]; half of it is a zero weight")
    levels: Levels | None = Field(8, description="voltages that can be written; none: any")
    multiplier: Multiplier
    retention: Positive | None = Field(None, description="time constant of the stored voltage [s]; none: no leakage")
    leaks_to: Literal["middle", "ground"] = Field(
        "middle",
        description="with retention, where the voltage relaxes to: middle of the supply, a zero weight; or 0 V",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.multiplier.kind == "table" and self.retention is not None and self.levels is None:
            raise ValueError("a table multiplier with leakage needs levels; choose 2 or more, or retention: null")
        return self

    @property
    def middle(self) -> float:
        """The voltage of a zero weight [V]."""
        return self.supply / 2


class PulseCoding(Part):
    """Charge to pulse: inputs, scores and outputs as pulse widths."""

    longest: Positive = Field(
        15e-9, description="longest pulse [s], against which noise.jitter counts; part of token_time"
    )
    input_levels: Levels | None = Field(16, description="widths of an input pulse, none included; none: any width")
    score_saturation: Positive = Field(80e-6, description="summed current whose charge makes the longest pulse [A]")
    output_saturation: Positive = Field(40e-6, description="summed current at which a readout saturates [A]")
    output_levels: Annotated[int, Field(ge=4, le=65536, multiple_of=2)] | None = Field(
        32, description="codes of a readout, a sign and a count of levels / 2; none: not quantised"
    )


class GainCellNoise(Part):
    """What differs from cell to cell, from write to write and from read to read; standard deviations, 0: off."""

    gain: NonNegative = Field(0.0, description="of a cell's current, relative; fixed for a chip")
    offset: NonNegative = Field(0.0, description="of a cell's current [A]; fixed for a chip")
    comparator: NonNegative = Field(0.0, description="of a charge-to-pulse comparator's zero [A]; fixed for a chip")
    write: NonNegative = Field(0.0, description="of a written voltage [V]; new at every write")
    read: NonNegative = Field(0.0, description="of the summed current of a column [A]; new at every read")
    jitter: NonNegative = Field(0.0, description="of a pulse width [s]; new at every pulse")


class GainCellAttentionUnit(Part):
    """Attention of query heads, each in `window` columns of gain cells: both products and the activation between.

    The columns are cut into sub-tiles of `array` columns, each with its own readout; their outputs are added
    digitally. The oldest column is overwritten when the window is full.
    """

    kind: Literal["gain_cell_attention"] = "gain_cell_attention"
    array: Count = Field(64, description="side of the square arrays: largest head size, columns of a sub-tile")
    window: Count = Field(1024, description="tokens kept; a new one overwrites the oldest")
    cell: GainCell
    pulses: PulseCoding
    noise: GainCellNoise | None = Field(None, description="none: every cell and circuit is alike and quiet")
    token_time: Positive = Field(description="time of one token without the adders over the sub-tiles [s]")
    adder_time: NonNegative = Field(0.0, description="time of one level of the adders over the sub-tiles [s]")
    token_period: Positive | None = Field(
        None, description="time from one token to the next [s], for leakage; none: all layers of attention in a row"
    )
    count: dict[str, Count] = Field({"tile": 16, "head": 1}, description="how the unit is nested, innermost first")
    components: dict[str, Component] = Field({}, description="what the unit is built of and what it costs")
    source: str = Field("", description="where the numbers come from")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if "tile" not in self.count or "head" not in self.count:
            raise ValueError("count needs the levels 'tile', the sub-tiles of a head, and 'head'")
        if self.window > self.columns:
            raise ValueError(
                f"window = {self.window} does not fit: {self.count['tile']} sub-tiles of {self.array} columns hold "
                f"{self.columns}; choose a window up to {self.columns}, or count.tile = {self.tiles}"
            )
        check_components(self.components, GAIN_CELL_ACTIONS, (*self.count, "chip"))
        return self

    @property
    def columns(self) -> int:
        """Columns that one head has."""
        return self.array * self.count["tile"]

    @property
    def tiles(self) -> int:
        """Sub-tiles that the window takes."""
        return math.ceil(self.window / self.array)

    @property
    def latency(self) -> float:
        """Time of one token in one layer [s]: all heads and sub-tiles at once, then the adders."""
        return self.token_time + self.adder_time * math.ceil(math.log2(self.tiles))

    def period(self, layers: int) -> float:
        """Time from one token to the next in a model of so many layers of attention [s]."""
        return self.token_period or layers * self.latency
