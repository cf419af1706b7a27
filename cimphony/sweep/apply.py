"""What a point of a study is: its chip, its request, its method; and which points share work. Torch-free."""

import json
from typing import Any, TypeVar, cast

from cimphony.chip import Chip, load_chip
from cimphony.chip.part import Part
from cimphony.errors import ChipError, DataError
from cimphony.sweep.study import Axes, Method, Scalar, Study, Work
from cimphony.units import parse_seconds

Options = TypeVar("Options", bound=Part)
_PER_CHIP = ("seed", "age")  # the same converted and calibrated model, programmed anew


def values(study: Study, axes: Axes) -> dict[str, Scalar]:
    """field -> value of a point, for all axes."""
    return {field: value for axis, value in axes.items() for field in study.fields(axis)}


def point_chip(study: Study, axes: Axes) -> Chip:
    """The chip of a point. Raises ChipError where a field is unknown or a value not allowed."""
    given = values(study, axes)
    chip = load_chip(str(given["chip"])) if "chip" in given else study.base_chip()
    changes = {name: value for name, value in given.items() if _of_chip(name)}
    crossbar = f"units.{chip.policy.get('static_matmul', '')}"
    if "fidelity" in given:
        changes[f"{crossbar}.fidelity"] = given["fidelity"]
    method = point_method(study, axes)
    if method is not None and method.slc_rate is not None:  # cost reads the same rate
        changes[f"{crossbar}.cell.slc_rate"] = method.slc_rate
    return chip.replace(changes) if changes else chip


def point_work(study: Study, axes: Axes) -> Work:
    """The request of a point."""
    return _with(study.workload, "workload", values(study, axes))


def point_method(study: Study, axes: Axes) -> Method | None:
    """How cells are shared out at a point; None: as the chip says."""
    given = values(study, axes)
    if study.method is None and not any(name.startswith("method.") for name in given):
        return None
    return _with(study.method or Method.model_validate({}), "method", given)


def point_age(study: Study, axes: Axes) -> float:
    """Seconds since programming."""
    return parse_seconds(cast(str | float, values(study, axes).get("age", 0.0)))


def point_model(study: Study, axes: Axes) -> str:
    """Name of the model of a point."""
    return str(values(study, axes).get("model", study.model))


def shared_key(study: Study, axes: Axes) -> tuple[str, str]:
    """Points with equal first parts share a model, with equal keys also its conversion and calibration."""
    given = values(study, axes)
    converted = {name: value for name, value in given.items() if name not in _PER_CHIP}
    return f"{point_model(study, axes)} {given.get('method.rank')}", json.dumps(converted, sort_keys=True)


def check(study: Study, functions: tuple[str, ...] = ()) -> None:
    """Before anything runs: measures are known, and every axis of the chip leads to one of its fields."""
    from cimphony.sweep.study import MEASURES

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
        description = point_chip(study, {chip_axis: name} if chip_axis else {}).model_dump()
        for axis in first:
            for field in filter(_of_chip, study.fields(axis)):
                _check_path(axis, field, description)


def reference(study: Study) -> str:
    """The measure that yield is of: the first that needs a model."""
    found = [name for name in study.numbers if name != "yield"]
    return found[0] if found else ""


def _of_chip(field: str) -> bool:
    return field.partition(".")[0] in ("units", "links", "policy", "node", "voltage")


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


def _with(options: Options, head: str, given: dict[str, Scalar]) -> Options:
    changes = {name.partition(".")[2]: value for name, value in given.items() if name.startswith(f"{head}.")}
    if not changes:
        return options
    try:
        return type(options).model_validate(options.model_dump() | changes)
    except ValueError as error:
        said = str(error).splitlines()
        raise DataError(f"{head}.{said[1]}: {said[2].strip()}") from None
