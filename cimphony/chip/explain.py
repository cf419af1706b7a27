"""A pydantic error as one clear sentence: the field, the value, what is allowed, the way out."""

import difflib
import textwrap
from typing import Any, cast, get_args

from pydantic import BaseModel, ValidationError


def explain(error: ValidationError, model: type[BaseModel], data: dict[str, Any]) -> str:
    """The first error of a validation as a sentence, and how many more there are."""
    details = error.errors(include_url=False)
    first, others = details[0], len(details) - 1
    name = data.get("name")
    path = [str(part) for part in first["loc"] if part != "[key]" and not _is_tag(part, first, data)]
    field = ".".join(path)
    more = f" ({others} more {'error' if others == 1 else 'errors'} after this one)" if others else ""
    return f"{f'chip {name!r}' if name else 'the chip'}: {_sentence(first, field, path, model)}{more}"


def _sentence(detail: Any, field: str, path: list[str], model: type[BaseModel]) -> str:
    kind, value = detail["type"], detail.get("input")
    if kind == "extra_forbidden":
        known = _fields_at(model, detail["loc"][:-1])
        close = difflib.get_close_matches(path[-1], known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else ""
        fields = f"Its fields are: {', '.join(known)}." if known else ""
        return " ".join(
            part for part in (f"{field} is not a field;" if hint else f"{field} is not a field.", hint, fields) if part
        )
    if kind == "missing":
        return f"{field} is missing; add it to the description"
    if kind == "union_tag_not_found":
        here = _parts_at(model, detail["loc"])
        here = here if len(here) > 1 else _parts_at(model, detail["loc"][:-1])
        kinds = [kind for part in here for kind in get_args(part.model_fields["kind"].annotation)]
        return f"{field}.kind is missing; choose one of {', '.join(kinds)}, or correct the name {path[-1]!r}"
    if kind == "union_tag_invalid":
        context = detail["ctx"]
        return f"{field}.kind = {context['tag']!r} is unknown; choose one of {context['expected_tags']}"
    message = detail["msg"].removeprefix("Value error, ")
    if kind == "value_error":
        return f"{field}: {message}" if field else message
    message = message[0].lower() + message[1:]
    for theirs, ours in (("input should", "it must"), ("a valid tuple", "a list"), ("a valid dictionary", "a mapping")):
        message = message.replace(theirs, ours)
    return f"{field} = {textwrap.shorten(repr(value), 80)} is not allowed: {message}"


def _is_tag(part: Any, detail: Any, data: dict[str, Any]) -> bool:
    """Pydantic puts the chosen union member into the path; a reader of the YAML never wrote it."""
    place: Any = data
    for step in detail["loc"]:
        here = cast(dict[Any, Any], place) if isinstance(place, dict) else {}
        if step in here:
            place = here[step]
        elif step is part:
            return here.get("kind", "sar") == part  # a converter without a kind is a sar one
    return False


def _fields_at(model: type[BaseModel], path: tuple[Any, ...]) -> list[str]:
    """Names of the fields of the part that a path leads to."""
    return list(dict.fromkeys(name for part in _parts_at(model, path) for name in part.model_fields))


def _parts_at(model: type[BaseModel], path: tuple[Any, ...]) -> list[Any]:
    """The parts that a path may lead to; walks unions by their tag."""
    candidates: list[Any] = [model]
    for step in path:
        following: list[Any] = []
        for candidate in candidates:
            fields = candidate.model_fields
            if step in fields:
                following += _models(fields[step].annotation)
            elif fields.get("kind") is not None and step in get_args(fields["kind"].annotation):
                following.append(candidate)
        candidates = following or candidates  # a dictionary key keeps the values' type
    return candidates


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models(argument)]
