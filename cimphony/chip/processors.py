"""Digital units as data: in-memory logic, special functions, processors known by their roofline."""

from typing import Annotated, Literal

from pydantic import Field

from cimphony.chip.part import Component, Count, Fraction, NonNegative, Part, Positive


class NorPimUnit(Part):
    """Digital arithmetic inside memory arrays by NOR operations; exact."""

    kind: Literal["nor_pim"] = "nor_pim"
    operations_per_cycle: Positive = Field(description="INT8 multiply-adds of one module per clock cycle")
    clock: Positive = Field(description="clock frequency [Hz]")
    count: dict[str, Count] = Field({"module": 1}, description="how the unit is nested, innermost first")
    capacity: NonNegative = Field(0.0, description="memory of one module [bytes]")
    components: dict[str, Component] = Field({}, description="what the unit is built of and what it costs")
    source: str = Field("", description="where the numbers come from")


class SpecialFunctionUnit(Part):
    """Softmax, normalisation, activation and elementwise arithmetic in digital floating point; exact."""

    kind: Literal["special_function"] = "special_function"
    inputs_per_cycle: Positive = Field(description="elements of one instance per clock cycle")
    clock: Positive = Field(description="clock frequency [Hz]")
    count: dict[str, Count] = Field({"module": 1}, description="how the unit is nested, innermost first")
    components: dict[str, Component] = Field({}, description="what the unit is built of and what it costs")
    source: str = Field("", description="where the numbers come from")


class GpuUnit(Part):
    """A processor known by its roofline: peak arithmetic, memory bandwidth, power."""

    kind: Literal["gpu"] = "gpu"
    peak: Positive = Field(description="dense peak at `bits` [operations/s], a multiply-add counting two")
    bits: Annotated[int, Field(ge=4, le=64)] = Field(16, description="bits of weights and activations")
    bandwidth: Positive = Field(description="memory bandwidth [bytes/s]")
    memory: Positive = Field(description="memory [bytes]")
    power: Positive = Field(description="power at full load [W]")
    idle_power: NonNegative = Field(description="power when idle [W]")
    compute_utilisation: Annotated[Fraction, Field(gt=0)] = Field(1.0, description="share of the peak reached in practice")
    memory_utilisation: Annotated[Fraction, Field(gt=0)] = Field(1.0, description="share of the bandwidth reached in practice")
    area: NonNegative = Field(0.0, description="die area [m2]")
    source: str = Field("", description="where the numbers come from")


class Link(Part):
    """A connection between modules, processing units or chips."""

    bandwidth: Positive = Field(description="bytes per second")
    energy: NonNegative = Field(0.0, description="energy per byte [J]")
    latency: NonNegative = Field(0.0, description="time before the first byte arrives [s]")
    source: str = Field("", description="where the numbers come from")
