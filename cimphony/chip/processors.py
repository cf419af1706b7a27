"""Digital units as data: in-memory logic, special functions, processors known by their roofline."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from cimphony.chip.part import Component, Count, Fraction, NonNegative, Part, Positive
from cimphony.chip.pricing import NOR_ACTIONS, ROOFLINE_ACTIONS, SPECIAL_ACTIONS, check_components

_COMPONENTS = "what the unit is built of and what it costs"
_COUNT = "how the unit is nested, innermost first"
_SOURCE = "where the numbers come from"


class DigitalOperands(Part):
    """How the operands of attention become whole numbers."""

    probability_bits: Annotated[int, Field(ge=2, le=24)] = Field(
        12, description="bits of the softmax's results, times the scales of the values, on their way into x V"
    )
    range: Literal["token", "tensor"] = Field(
        "token",
        description="token: one scale for the vector of a token in a head; tensor: one for all tokens of a call",
    )


class NorPimUnit(Part):
    """Digital arithmetic inside memory arrays by NOR operations; exact."""

    kind: Literal["nor_pim"] = "nor_pim"
    rows: Count = Field(1024, description="rows of one memory array, all working at once")
    columns: Count = Field(1024, description="columns of one memory array")
    reading: Literal["published", "row_parallel", "magic"] = Field(
        "row_parallel",
        description="how long a multiply-add takes: published: bits^2 NOR of five cycles, three columns each; "
        "row_parallel: the same without the columns, which are storage; magic: 13 bits^2 - 14 bits + 6 cycles",
    )
    bits: Annotated[int, Field(ge=1, le=64)] = Field(8, description="bits of both operands")
    attention: DigitalOperands | None = Field(
        None,
        description="operands of attention as whole numbers of `bits`, in the numbers and in the cost of x V; "
        "none: numbers keep the model's floating point, and both products cost `bits` by `bits`",
    )
    density: Annotated[Fraction, Field(gt=0)] = Field(
        1.0, description="share of the multiply-adds left after pruning, for the cost alone: numbers prune nothing"
    )
    clock: Positive = Field(description="clock frequency [Hz]")
    count: dict[str, Count] = Field({"array": 256, "module": 1}, description=_COUNT)
    endurance: Positive | None = Field(None, description="writes a cell survives; none: not stated")
    components: dict[str, Component] = Field({}, description=_COMPONENTS)
    source: str = Field("", description=_SOURCE)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if "module" not in self.count:
            raise ValueError("count needs a level 'module': the arrays that work on one instruction stream")
        check_components(self.components, NOR_ACTIONS, (*self.count, "chip"))
        return self

    @property
    def operations_per_cycle(self) -> float:
        """Multiply-adds of one module per clock cycle, by the chosen reading, with both operands of `bits`."""
        return self.rate(self.bits)

    def rate(self, other: int) -> float:
        """The same where one operand has other bits: bits^2 becomes the product of the two."""
        product = self.bits * other
        cycles = {
            "published": 3 * 5 * product,
            "row_parallel": 5 * product,
            "magic": 13 * product - 14 * product**0.5 + 6,
        }[self.reading]
        return self.count.get("array", 1) * self.columns / cycles

    @property
    def module_bytes(self) -> float:
        """Memory of one module [bytes]."""
        return self.count.get("array", 1) * self.rows * self.columns / 8


class SpecialFunctionUnit(Part):
    """Softmax, normalisation, activation and elementwise arithmetic in digital floating point."""

    kind: Literal["special_function"] = "special_function"
    bits: Literal[16] | None = Field(
        None,
        description="16: numbers in FP16, for norms, activations and the softmax of digital attention; none: exact",
    )
    inputs_per_cycle: Positive = Field(description="elements of one instance per clock cycle")
    clock: Positive = Field(description="clock frequency [Hz]")
    count: dict[str, Count] = Field({"module": 1}, description=_COUNT)
    components: dict[str, Component] = Field({}, description=_COMPONENTS)
    source: str = Field("", description=_SOURCE)

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_components(self.components, SPECIAL_ACTIONS, (*self.count, "chip"))
        return self


class GpuUnit(Part):
    """A processor known by its roofline: peak arithmetic, memory bandwidth, power."""

    kind: Literal["gpu"] = "gpu"
    peak: Positive = Field(description="dense peak at `bits` [operations/s], a multiply-add counting two")
    bits: Annotated[int, Field(ge=4, le=64)] = Field(16, description="bits of weights and activations")
    bandwidth: Positive = Field(description="memory bandwidth [bytes/s]")
    memory: Positive = Field(description="memory [bytes]")
    power: NonNegative = Field(description="power at full load [W]; 0: energy comes from the components alone")
    idle_power: NonNegative = Field(0.0, description="power when idle [W], part of power")
    compute_utilisation: Annotated[Fraction, Field(gt=0)] = Field(
        1.0, description="share of the peak reached in practice"
    )
    memory_utilisation: Annotated[Fraction, Field(gt=0)] = Field(
        1.0, description="share of the bandwidth reached in practice"
    )
    area: NonNegative = Field(0.0, description="die area [m2]")
    density: Annotated[Fraction, Field(gt=0)] = Field(
        1.0, description="share of dynamic multiply-adds left after pruning, for the cost alone"
    )
    components: dict[str, Component] = Field({}, description=_COMPONENTS)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.idle_power > self.power:
            raise ValueError(f"idle_power = {self.idle_power} must not exceed power = {self.power}")
        check_components(self.components, ROOFLINE_ACTIONS, ("chip",))
        return self


class Link(Part):
    """A connection between modules, processing units or chips."""

    bandwidth: Positive = Field(description="bytes per second")
    energy: NonNegative = Field(0.0, description="energy per byte [J]")
    latency: NonNegative = Field(0.0, description="time before the first byte arrives [s]")
    source: str = Field("", description="where the numbers come from")
