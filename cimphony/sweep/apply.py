"""What a point of a study is: its chip, its request, its method; and which points share work. Torch-free."""

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar, cast

from cimphony.chip import Chip, load_chip
from cimphony.chip.part import Part
from cimphony.errors import ChipError, DataError
from cimphony.sweep.study import MEASURES, Axes, Method, Scalar, Study, Work, of_chip
from cimphony.units import parse_seconds

Options = TypeVar("Options", bound=Part)
_PER_CHIP = ("seed", "age")  # the same converted and calibrated model, programmed anew


@dataclass(frozen=True)
class Point:
    """One point of a study, by the values of its axes. ChipError or DataError where a value is not allowed."""

    study: Study
    axes: Axes

    @cached_property
    def values(self) -> dict[str, Scalar]:
        """By field, for all axes."""
        return {field: value for axis, value in self.axes.items() for field in self.study.fields(axis)}

    @cached_property
    def chip(self) -> Chip:
        """The chip, changed as the axes say."""
        given = self.values
        chip = load_chip(str(given["chip"])) if "chip" in given else self.study.base_chip()
        changes = {name: value for name, value in given.items() if of_chip(name)}
        crossbar = f"units.{chip.policy.get('static_matmul', '')}"
        if "fidelity" in given:
            changes[f"{crossbar}.fidelity"] = given["fidelity"]
        if self.method is not None and self.method.slc_rate is not None:  # cost reads the same rate
            changes[f"{crossbar}.cell.slc_rate"] = self.method.slc_rate
        node = changes.pop("node", None)
        chip = chip.replace(changes) if changes else chip
        return chip if node is None else chip.replace({"node": node})  # values of other axes are of the old one

    @property
    def work(self) -> Work:
        """The request."""
        return self._with(self.study.workload, "workload.")

    @cached_property
    def method(self) -> Method | None:
        """How cells are shared out; None: as the chip says."""
        if self.study.method is None and not any(name.startswith("method.") for name in self.values):
            return None
        return self._with(self.study.method or Method.model_validate({}), "method.")

    @property
    def age(self) -> float:
        """Seconds since programming."""
        return parse_seconds(cast(str | float, self.values.get("age", 0.0)))

    @property
    def model(self) -> str:
        """Name of the model."""
        return str(self.values.get("model", self.study.model))

    @property
    def shares(self) -> tuple[str, str]:
        """Points with equal first parts share a model, with equal parts also its conversion and calibration."""
        converted = {name: value for name, value in self.values.items() if name not in _PER_CHIP}
        return f"{self.model} {self.values.get('method.rank')}", json.dumps(converted, sort_keys=True)

    def _with(self, options: Options, head: str) -> Options:
        changes = {name.removeprefix(head): value for name, value in self.values.items() if name.startswith(head)}
        if not changes:
            return options
        try:
            return type(options).model_validate(options.model_dump() | changes)
        except ValueError as error:
            said = str(error).splitlines()
            raise DataError(f"{head}{said[1]}: {said[2].strip()}") from None


def check(study: Study, functions: tuple[str, ...] = ()) -> None:
    """Before anything runs: measures are known, and every axis of the chip leads to one of its fields."""
    for name in study.measures:
        if name not in MEASURES and name not in functions:
            raise DataError(
                f"measure {name!r} is unknown; choose from {', '.join(MEASURES)}, or pass functions={{{name!r}: ...}}"
            )
    if "yield" in study.measures and study.measures.get(reference(study)) is None:
        raise DataError("measure 'yield' needs a measure of the model with a direction, for example perplexity: min")
    first = next(study.grid())
    chip_axis = next((axis for axis in study.axes if "chip" in study.fields(axis)), None)
    for name in study.axes[chip_axis].grid() if chip_axis else (None,):
        description = Point(study, {chip_axis: name} if chip_axis else {}).chip.model_dump()
        for axis in first:
            for field in filter(of_chip, study.fields(axis)):
                _check_path(axis, field, description)


def reference(study: Study) -> str:
    """The measure that yield is of: the first that needs a model."""
    found = [name for name in study.numbers if name != "yield"]
    return found[0] if found else ""


def _check_path(axis: str, path: str, description: dict[str, Any]) -> None:
    place: Any = description
    for depth, key in enumerate(path.split(".")):
        if place is None:
            return  # an optional part that is off: the axis may turn it on
        if not isinstance(place, dict) or key not in place:
            at = ".".join(path.split(".")[:depth]) or "the chip"
            known = ", ".join(map(str, cast(dict[str, Any], place))) if isinstance(place, dict) else "no fields"
            raise ChipError(f"axis {axis!r}: {path!r} is not a field of {description['name']}: {at} has {known}")
        place = cast(dict[str, Any], place)[key]
