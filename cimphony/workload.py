"""What a model does, as a list of operations with shapes: no weights, no torch. JSON in and out."""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, ValidationError, model_validator

from cimphony.chip import OperationKind, Part
from cimphony.chip.part import Count
from cimphony.errors import DataError

Phase = Literal["prefill", "decode"]


class Operation(Part):
    """One operation of one layer in one phase, repeated.

    A matrix product takes [m, k] times [k, n], `groups` of them at once (heads, batch, convolution groups); of a
    mixture of experts every row goes through `active` of the `groups`, all of them equally often.
    Anything else works on `elements` numbers. `repeat` says how often the phase does it: once in prefill, once
    a token in decode.
    """

    layer: str = Field(description="name of the module")
    kind: OperationKind
    phase: Phase = "prefill"
    function: str = Field(
        default="", description="what it computes: linear, gelu, ...; attention's products: query_key, attention_value"
    )
    m: int = Field(default=0, ge=0, description="rows of the first matrix: tokens, or pixels of all images")
    k: int = Field(default=0, ge=0, description="inner size")
    n: int = Field(default=0, ge=0, description="columns of the second matrix: output features")
    groups: Count = Field(default=1, description="independent products of this shape")
    active: Count | None = Field(
        default=None, description="of `groups`, how many a row goes through: experts of a token; none: all"
    )
    elements: int = Field(default=0, ge=0, description="numbers worked on, for what is not a product")
    repeat: Count = 1
    modes_by: Literal["column", "row"] = Field(
        default="column", description="what cell modes divide: output columns, or inputs (ranks of a factor)"
    )

    @model_validator(mode="after")
    def _enough_groups(self) -> Self:
        if self.active is not None and self.active > self.groups:
            raise ValueError(
                f"active = {self.active} is more than groups = {self.groups}; a row goes through each once"
            )
        return self

    @property
    def used(self) -> int:
        """Products of this shape that one row goes through."""
        return self.active or self.groups

    @property
    def hit(self) -> float:
        """Stored matrices that some row of one repeat is expected to need: all, or E (1 - (1 - k / E)^m) experts."""
        return self.groups if self.active is None else self.groups * (1 - (1 - self.active / self.groups) ** self.m)

    @property
    def outputs(self) -> int:
        """Results of a product over all repeats; those of a row's experts are one sum."""
        return self.m * self.n * (self.groups if self.active is None else 1) * self.repeat

    @property
    def macs(self) -> int:
        """Multiply-adds over all repeats; 0 for what is not a product."""
        return self.m * self.k * self.n * self.used * self.repeat

    @property
    def weights(self) -> int:
        """Stored weights of a static product or an adapter; 0 otherwise."""
        return self.k * self.n * self.groups if self.kind in ("static_matmul", "adapter") else 0


@dataclass(frozen=True)
class Block:
    """Operations that belong together, and how often they repeat: the layers of a transformer are one block.

    `names` has one entry per repetition, `operations` are those of the first.
    """

    names: tuple[str, ...]
    operations: tuple[Operation, ...]

    def layers(self, operation: Operation) -> tuple[str, ...]:
        """Names of the layer of an operation in every repetition."""
        ending = operation.layer[len(self.names[0]) :]
        return tuple(name + ending for name in self.names)

    def only(self, names: tuple[str, ...]) -> "Block":
        """Some of the repetitions, in this order."""
        if names[0] == self.names[0]:
            return Block(names, self.operations)
        old = len(self.names[0])
        renamed = (one.model_copy(update={"layer": names[0] + one.layer[old:]}) for one in self.operations)
        return Block(names, tuple(renamed))


class Workload(Part):
    """The operations of a model for one request: a prompt, then new tokens."""

    model: str
    operations: list[Operation] = Field(min_length=1)
    parameters: int = Field(default=0, ge=0, description="all parameters, embeddings included, tied ones once")
    batch: Count = 1
    prompt: int = Field(default=0, ge=0, description="tokens of the prompt; for pictures, patches or pixels")
    new_tokens: int = Field(default=0, ge=0, description="tokens generated after the prompt")

    @property
    def active_parameters(self) -> int:
        """Parameters that work on one token: all but those of the experts it does not go through."""
        stored = {one.layer: one for one in self.operations if one.active is not None}
        return self.parameters - sum(one.k * one.n * (one.groups - one.used) for one in stored.values())

    def macs(self, kind: OperationKind | None = None, phase: Phase | None = None) -> int:
        """Multiply-adds, of one kind and phase or of all."""
        return sum(operation.macs for operation in self.select(kind, phase))

    def select(self, kind: OperationKind | None = None, phase: Phase | None = None) -> Iterable[Operation]:
        """Operations of one kind and phase, or of all."""
        return (
            operation
            for operation in self.operations
            if (kind is None or operation.kind == kind) and (phase is None or operation.phase == phase)
        )

    @property
    def blocks(self) -> tuple[Block, ...]:
        """The operations grouped: what stands under one number in the module names, equal ones counted once."""
        beside = vars(self)  # beside the fields: no part of equality or of the JSON
        cached = beside.get("_blocks")
        if cached is None or cached[0] is not self.operations:
            cached = beside["_blocks"] = (self.operations, _group(self.operations))
        return cached[1]

    def to_json(self) -> str:
        """The workload as JSON; `load_workload` reads it back to an equal one."""
        return self.model_dump_json(indent=1, exclude_defaults=True)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Raises DataError where the text is not a workload."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            field = ".".join(str(part) for part in first["loc"])
            raise DataError(
                f"not a workload: {field or 'the text'}: {first['msg']}; write one with to_json()"
            ) from None


_NUMBERED = re.compile(r"(?:.*?\.)?\d+(?=\.|$)")


def _group(operations: list[Operation]) -> tuple[Block, ...]:
    members: dict[str, list[Operation]] = {}
    for operation in operations:
        numbered = _NUMBERED.match(operation.layer)
        members.setdefault(numbered[0] if numbered else operation.layer, []).append(operation)
    equal: dict[tuple[object, ...], list[str]] = {}
    for name, inside in members.items():
        shape = tuple((one.layer[len(name) :], *list(one.__dict__.values())[1:]) for one in inside)
        equal.setdefault(shape, []).append(name)
    return tuple(Block(tuple(names), tuple(members[names[0]])) for names in equal.values())


def load_workload(path: str | Path) -> Workload:
    """A workload from a JSON file."""
    try:
        return Workload.from_json(Path(path).read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise DataError(f"workload {str(path)!r} cannot be read: {error}") from None
