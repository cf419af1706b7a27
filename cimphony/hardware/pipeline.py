"""A pipeline as data: stages of steps on signed integers, between registers. One result every clock cycle.

`Build` writes one down with ordinary operators; `Pipeline.evaluate` is its exact fixed-point model, `verilog.module`
the same steps as hardware. Neither knows what the steps compute, so a new activation is a new list of stages.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cimphony.errors import DataError

Integers = NDArray[np.int64]

# what a step computes from its operands, in numpy and as a Verilog expression
OPERATIONS: dict[str, tuple[Callable[..., Any], str]] = {
    "add": (lambda a, b: a + b, "{0} + {1}"),
    "sub": (lambda a, b: a - b, "{0} - {1}"),
    "mul": (lambda a, b: a * b, "{0} * {1}"),
    "not": (lambda a: ~a, "~{0}"),
    "wrap": (lambda a: a, "{0}"),
    "and": (lambda a, b: a & b, "{0} & {1}"),
    "left": (lambda a, b: a << b, "{0} <<< {1}"),
    "right": (lambda a, b: a >> b, "{0} >>> {1}"),
    "negative": (lambda c, a, b: np.where(c < 0, a, b), "({0} < 0) ? {1} : {2}"),
    "table": (lambda a, values: np.asarray(values)[a], "{1}[{0}]"),
}


@dataclass(frozen=True)
class Step:
    """One value of `bits` bits, two's complement: what does not fit is cut off at the top."""

    name: str
    bits: int
    operation: str
    operands: tuple[Any, ...]  # names of values, plain integers, or the tuple of numbers of a table


@dataclass(frozen=True)
class Stage:
    """Steps between two registers, computed in one clock cycle."""

    name: str
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class Pipeline:
    """An activation in hardware. `x` is the input, `output` the name of the result."""

    name: str
    input_bits: int
    stages: tuple[Stage, ...]
    output: str

    @property
    def latency(self) -> int:
        """Clock cycles from input to result; throughput is one result a cycle."""
        return len(self.stages)

    @property
    def bits(self) -> dict[str, int]:
        """Width of every value by name."""
        return {"x": self.input_bits} | {step.name: step.bits for stage in self.stages for step in stage.steps}

    def evaluate(self, x: Any) -> Integers:
        """The exact model: result of every input integer, any shape. Raises DataError where one does not fit."""
        values: dict[str, Any] = {"x": np.asarray(x, np.int64)}
        half = 1 << (self.input_bits - 1)
        if values["x"].size and (values["x"].min() < -half or values["x"].max() >= half):
            raise DataError(f"{self.name}: inputs must fit {self.input_bits} bits, {-half} to {half - 1}")
        for stage in self.stages:
            for step in stage.steps:
                operands = [values[one] if isinstance(one, str) else one for one in step.operands]
                values[step.name] = _wrap(OPERATIONS[step.operation][0](*operands), step.bits)
        return values[self.output]

    def live(self, at: int) -> list[str]:
        """Values that the register after stage `at` holds: made so far, needed later."""
        made = ["x", *(step.name for stage in self.stages[: at + 1] for step in stage.steps)]
        later = {one for stage in self.stages[at + 1 :] for step in stage.steps for one in step.operands}
        return [name for name in made if name in later | {self.output}]

    def resources(self) -> list[dict[str, Any]]:
        """Each stage with what it takes by its description: bits of registers, multipliers, adders, ROM bits."""
        rows: list[dict[str, Any]] = []
        for at, stage in enumerate(self.stages):
            widths = {kind: [one.bits for one in stage.steps if one.operation in kind] for kind in ("mul", "add sub")}
            rom = sum(len(one.operands[1]) * one.bits for one in stage.steps if one.operation == "table")
            registers = sum(self.bits[name] for name in self.live(at))
            rows.append({"stage": stage.name, "registers": registers, "multipliers": widths["mul"]})
            rows[-1] |= {"adders": widths["add sub"], "rom_bits": rom}
        return rows

    def with_stages(self, count: int) -> "Pipeline":
        """The same steps with registers at fewer places, spread evenly: less latency, a slower clock."""
        if not 1 <= count <= self.latency:
            raise DataError(f"{self.name} has {self.latency} stages; count = {count} must be 1 to {self.latency}")
        groups = np.array_split(np.arange(self.latency), count)
        merged = [[self.stages[at] for at in group] for group in groups]
        stages = [
            Stage(", ".join(one.name for one in group), tuple(step for one in group for step in one.steps))
            for group in merged
        ]
        return replace(self, stages=tuple(stages))


def _wrap(values: Any, bits: int) -> Integers:
    half = np.int64(1 << (bits - 1))
    return ((np.asarray(values, np.int64) + half) & np.int64((1 << bits) - 1)) - half


@dataclass(frozen=True)
class Wire:
    """A value while a pipeline is written down; operators add steps, wide enough for every result."""

    name: str
    bits: int
    build: "Build" = field(repr=False)

    def _to(self, operation: str, bits: int, *operands: Any) -> "Wire":
        return self.build.step(operation, bits, self, *operands)

    def __add__(self, other: "Wire | int") -> "Wire":
        return self._to("add", max(self.bits, _width(other)) + 1, other)

    def __sub__(self, other: "Wire | int") -> "Wire":
        return self._to("sub", max(self.bits, _width(other)) + 1, other)

    def __rsub__(self, other: int) -> "Wire":
        return self.build.step("sub", max(self.bits, _width(other)) + 1, other, self)

    def __mul__(self, other: "Wire | int") -> "Wire":
        return self._to("mul", self.bits + _width(other), other)

    def __invert__(self) -> "Wire":
        return self._to("not", self.bits)

    def __lshift__(self, places: int) -> "Wire":
        return self._to("left", self.bits + places, places)

    def __rshift__(self, places: "int | Wire") -> "Wire":
        return self._to("right", max(1, self.bits - places) if isinstance(places, int) else self.bits, places)

    def wrap(self, bits: int) -> "Wire":
        """The low bits, as two's complement."""
        return self._to("wrap", bits)

    def low(self, bits: int) -> "Wire":
        """The low bits, as a number from 0."""
        return self._to("and", bits + 1, (1 << bits) - 1)

    def where_negative(self, then: "Wire | int", otherwise: "Wire | int") -> "Wire":
        """One of two values, by the sign of this one."""
        return self._to("negative", max(_width(then), _width(otherwise)), then, otherwise)

    def magnitude(self) -> "Wire":
        """|value|."""
        return self.where_negative(0 - self, self)

    def sign(self) -> "Wire":
        """One bit: -1 where the value is negative, else 0."""
        return self._to("right", 1, self.bits - 1)

    def rounded(self, places: int) -> "Wire":
        """Shifted right, a half rounded up."""
        return (self + (1 << (places - 1))) >> places

    def lookup(self, values: list[int]) -> "Wire":
        """An entry of a table; the value must be 0 to len(values) - 1."""
        return self._to("table", max(_width(min(values)), _width(max(values))), tuple(values))


def _width(value: "Wire | int") -> int:
    return (
        value.bits
        if isinstance(value, Wire)
        else max(value.bit_length() if value >= 0 else (~value).bit_length(), 1) + 1
    )


class Build:
    """Writes a pipeline down: operators on its wires add steps, `stage` puts a register before what follows."""

    def __init__(self, name: str, input_bits: int) -> None:
        self.name, self.x = name, Wire("x", input_bits, self)
        self._stages: list[tuple[str, list[Step]]] = []

    def stage(self, name: str) -> None:
        """Begin a stage."""
        self._stages.append((name, []))

    def step(self, operation: str, bits: int, *operands: Any) -> Wire:
        """Add a step to the present stage."""
        if not self._stages:
            raise DataError(f"{self.name}: begin a stage before the first step")
        name = f"v{sum(len(steps) for _, steps in self._stages)}"
        plain = tuple(one.name if isinstance(one, Wire) else one for one in operands)
        self._stages[-1][1].append(Step(name, bits, operation, plain))
        return Wire(name, bits, self)

    def done(self, output: Wire) -> Pipeline:
        """The pipeline that ends in `output`."""
        stages = tuple(Stage(name, tuple(steps)) for name, steps in self._stages)
        return Pipeline(self.name, self.x.bits, stages, output.name)
