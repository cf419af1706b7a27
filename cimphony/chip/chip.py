"""Chip: one frozen description that both towers read, numbers and cost."""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal, Self, TypeVar, cast

import yaml
from pydantic import Field, ValidationError, model_validator

from cimphony.chip.acam import AcamUnit
from cimphony.chip.crossbar import CrossbarUnit
from cimphony.chip.explain import explain
from cimphony.chip.gain_cell import GainCellAttentionUnit
from cimphony.chip.nodes import keep_conditions
from cimphony.chip.part import Count, Node, Part, Positive
from cimphony.chip.processors import GpuUnit, Link, NorPimUnit, SpecialFunctionUnit
from cimphony.chip.switches import NON_IDEALITIES, check_names, switch_off
from cimphony.errors import ChipError

Unit = Annotated[
    CrossbarUnit | NorPimUnit | GainCellAttentionUnit | AcamUnit | SpecialFunctionUnit | GpuUnit,
    Field(discriminator="kind"),
]
OperationKind = Literal[
    "static_matmul", "adapter", "dynamic_matmul", "softmax", "activation", "norm", "elementwise", "embedding"
]
LinkName = Literal["bus", "pu", "chip"]
_Kind = TypeVar("_Kind", bound=Part)
_RUNS: dict[str, tuple[str, ...]] = {
    "static_matmul": ("crossbar", "gpu"),
    "adapter": ("crossbar", "gpu"),
    "dynamic_matmul": ("nor_pim", "gain_cell_attention", "acam", "gpu"),
    "softmax": ("special_function", "gain_cell_attention", "acam", "gpu"),
    "activation": ("special_function", "acam", "gpu"),
    **dict.fromkeys(("norm", "elementwise", "embedding"), ("special_function", "gpu")),
}


class Chip(Part):
    """A chip: its units, which unit runs which kind of operation, and the links between them."""

    name: str = Field(min_length=1, max_length=80)
    source: str = Field("", description="the publication or measurement that the numbers come from")
    node: Node = Field(description="technology node [m]; prices taken over from another node are scaled to it")
    voltage: Positive | None = Field(
        None, description="supply voltage [V]; prices taken over from another are scaled; none: nominal for the node"
    )
    units: dict[str, Unit] = Field(min_length=1)
    policy: dict[OperationKind, str] = Field(
        {},
        description="the unit for each kind of operation; the rest stays digital. adapter: the low-rank branch of an "
        "adapted layer; without a unit of its own it is a static_matmul like any other",
    )
    redundancy: dict[str, Count] = Field(
        {},
        description="how many times a stored layer is programmed, by wildcard on its name; outputs are averaged. The "
        "first wildcard that matches decides, the rest is stored once",
    )
    links: dict[LinkName, Link] = Field(
        {},
        description="connections: chip: from one chip to the next; pu: from one block of layers to the next within a "
        "chip; bus: partial sums between the units that share a block's weights (none: they take pu)",
    )
    notes: list[str] = Field([], description="assumptions a reader must know; every report repeats them")

    @model_validator(mode="after")
    def _policy_names_units(self) -> Self:
        for operation, name in self.policy.items():
            if name not in self.units:
                raise ValueError(f"policy.{operation} = {name!r} is not one of the units: {', '.join(self.units)}")
            kind = self.units[name].kind
            if kind not in _RUNS[operation]:
                raise ValueError(
                    f"policy.{operation} = {name!r}: a {kind} unit cannot run {operation}; "
                    f"choose a unit of kind {' or '.join(_RUNS[operation])}"
                )
        return self

    @model_validator(mode="after")
    def _gain_cells_run_both(self) -> Self:
        names = self.policy.get("dynamic_matmul"), self.policy.get("softmax")
        whole = [name for name in names if name and self.units[name].kind == "gain_cell_attention"]
        if whole and names[0] != names[1]:
            raise ValueError(
                f"policy: {whole[0]!r} is a gain_cell_attention unit, which runs dynamic_matmul and softmax in one go; "
                f"give it both, or neither"
            )
        return self

    @model_validator(mode="after")
    def _acams_have_arrays(self) -> Self:
        for name, unit in self.units.items():
            if not isinstance(unit, AcamUnit):
                continue
            arrays = self.units.get(unit.arrays)
            if not isinstance(arrays, CrossbarUnit) or arrays.acam is None:
                fitting = [key for key, one in self.units.items() if isinstance(one, CrossbarUnit) and one.acam]
                raise ValueError(
                    f"units.{name}.arrays = {unit.arrays!r} is not a crossbar unit read by an acam; choose from "
                    f"{', '.join(fitting) or 'none yet: give a crossbar unit adc: {kind: acam, ...}'}"
                )
        return self

    def unit_for(self, operation: OperationKind) -> Unit | None:
        """The unit that runs this kind of operation, or None where it stays digital."""
        name = self.policy.get(operation)
        return None if name is None else self.units[name]

    def unit(self, name: str, kind: type[_Kind]) -> _Kind:
        """The unit of a name, known to be of a class such as CrossbarUnit. Raises ChipError where it is another."""
        found = self.units.get(name)
        if not isinstance(found, kind):
            raise ChipError(
                f"chip {self.name!r}: units.{name} is no {kind.__name__}; its units: {', '.join(self.units)}"
            )
        return found

    @property
    def adapter_unit(self) -> str | None:
        """Name of the unit that adapters have for themselves; None where they share their base layer's."""
        name = self.policy.get("adapter")
        return None if name == self.policy.get("static_matmul") else name

    def redundancy_of(self, layer: str, unit: str | None = None) -> int:
        """How many independently programmed copies of a layer's weights there are, 1 unless the chip says more.

        Only what runs on the unit of static_matmul is stored more than once.
        """
        if unit not in (None, self.policy.get("static_matmul")):
            return 1
        return next((count for pattern, count in self.redundancy.items() if fnmatchcase(layer, pattern)), 1)

    def replace(self, changes: Mapping[str, Any]) -> "Chip":
        """A new chip with fields changed, for example `{"units.analog.adc.bits": 7}`.

        Keys are dotted paths into the description. With another node or voltage, prices that are not among the
        changes keep theirs, and `estimate` scales them. Raises ChipError for a path that does not exist or a value
        that is not allowed.
        """
        data = self.model_dump()
        for path, value in changes.items():
            _set(data, path, value)
        keep_conditions({"node": self.node, "voltage": self.voltage}, data, [(*path.split("."),) for path in changes])
        return build_chip(data)

    def without(self, *non_idealities: str) -> "Chip":
        """A new chip with some non-idealities off: programming, read, drift, stuck, wires, converters."""
        return build_chip(switch_off(self.model_dump(), check_names(non_idealities)))

    def only(self, *non_idealities: str) -> "Chip":
        """A new chip with all other non-idealities off: `only("programming")`; `only()` switches everything off."""
        kept = check_names(non_idealities)
        return self.without(*(name for name in NON_IDEALITIES if name not in kept))

    def to_yaml(self) -> str:
        """The whole description as YAML; `load_chip` reads it back to an equal chip."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def build_chip(data: Any) -> Chip:
    """A validated chip from plain data; ChipError with one clear sentence where it is not valid."""
    if not isinstance(data, dict):
        raise ChipError(f"a chip description is a mapping of fields, not {type(data).__name__}; start with 'name: ...'")
    fields = cast(dict[str, Any], data)
    try:
        return Chip.model_validate(fields)
    except ValidationError as error:
        raise ChipError(explain(error, Chip, fields)) from None


def differences(one: Chip, other: Chip) -> list[tuple[str, str, str]]:
    """(dotted field, value in one, value in the other) wherever two chips differ; "-" where a field is missing."""
    left, right = (dict(_leaves(chip.model_dump(mode="json"), "")) for chip in (one, other))
    fields = [*left, *(field for field in right if field not in left)]
    return [
        (field, left.get(field, "-"), right.get(field, "-"))
        for field in fields
        if left.get(field, "-") != right.get(field, "-")
    ]


def _leaves(value: Any, path: str) -> list[tuple[str, str]]:
    if not isinstance(value, dict):
        return [(path, str(value))]
    fields = cast(dict[str, Any], value)
    return [leaf for key, part in fields.items() for leaf in _leaves(part, f"{path}.{key}" if path else str(key))]


def _set(data: dict[str, Any], path: str, value: Any) -> None:
    *parents, last = path.split(".")
    place = data
    for position, key in enumerate(parents):
        if key not in place:
            at = ".".join(parents[:position]) or "the chip"
            raise ChipError(f"{path!r} is not a path into the chip: {at} has no {key!r}; it has {', '.join(place)}")
        if place[key] is None:
            place[key] = {}
        if not isinstance(place[key], dict):
            at = ".".join(parents[: position + 1])
            raise ChipError(f"{path!r} is not a path into the chip: {at} is a plain value, {place[key]!r}")
        place = cast(dict[str, Any], place[key])
    place[last] = value
