"""Named chips and chip files: YAML in, a validated chip out."""

import csv
import difflib
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, cast

from cimphony.chip.chip import Chip, build_chip
from cimphony.chip.nodes import keep_conditions, leaf_paths
from cimphony.chip.strict_yaml import parse_yaml
from cimphony.errors import ChipError

_PRESETS = files("cimphony") / "chips"


def chip_names() -> list[str]:
    """Names of the chips that come with the library."""
    return sorted(entry.name.removesuffix(".yaml") for entry in _PRESETS.iterdir() if entry.name.endswith(".yaml"))


def load_chip(name: str | Path) -> Chip:
    """A chip by preset name, or from a YAML file.

    A file may say `base: NAME` and give only what differs: mappings merge, anything else replaces. Without a `name`
    of its own it is called like its file.
    Raises ChipError where the chip is unknown, the file is no YAML mapping, or a field is not valid.
    """
    if str(name) in chip_names():
        return _preset(str(name))
    path = Path(name)
    data = _read(path)
    return chip_from({"name": path.stem, **data} if "base" in data else data, path.parent)


def check_chip(chip: object) -> None:
    """ChipError where a name stands for the chip itself."""
    if not isinstance(chip, Chip):
        raise ChipError(f"chip = {chip!r} is a {type(chip).__name__}; give a chip, for example load_chip('hyflexpim')")


def chip_from(data: dict[str, Any], folder: Path | None = None) -> Chip:
    """A chip from the content of a chip file; `folder` is where a `base` that is a file is looked for."""
    return build_chip(_resolve(dict(data), folder, ()))


@cache
def _preset(name: str) -> Chip:
    return build_chip(_resolve(_parse((_PRESETS / f"{name}.yaml").read_text(encoding="utf-8"), name), None, (name,)))


def _read(path: Path, asked: str = "") -> dict[str, Any]:
    if not path.is_file():
        close = difflib.get_close_matches(path.name if asked else str(path), chip_names(), n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise ChipError(
            f"{asked}chip {str(path)!r} is neither a preset nor a file; {hint}Presets: {', '.join(chip_names())}. "
            "Or give the path of a YAML file."
        )
    try:
        return _parse(path.read_text(encoding="utf-8"), str(path))
    except UnicodeDecodeError:
        raise ChipError(f"{path} is not text in UTF-8; a chip file is YAML") from None


def _parse(text: str, name: str) -> dict[str, Any]:
    try:
        data = parse_yaml(text)
    except ValueError as error:
        raise ChipError(f"{name} is not valid YAML: {error}") from None
    if not isinstance(data, dict):
        raise ChipError(
            f"{name}: a chip file is a mapping of fields, not {type(data).__name__}; start with 'name: ...'"
        )
    return cast(dict[str, Any], data)


def _resolve(data: dict[str, Any], folder: Path | None, seen: tuple[str, ...]) -> dict[str, Any]:
    data = _tables(data, folder or Path())
    base = data.pop("base", None)
    if base is None:
        return data
    if base in seen:
        raise ChipError(f"base: {base} leads back to itself ({' -> '.join((*seen, base))}); remove one base")
    if base in chip_names():
        parent = _parse((_PRESETS / f"{base}.yaml").read_text(encoding="utf-8"), base)
    else:
        parent = _read((folder or Path()) / str(base), "base: ")
        folder = ((folder or Path()) / str(base)).parent
    whole = build_chip(_resolve(parent, folder, (*seen, str(base)))).model_dump()
    merged = _merge(whole, data)
    keep_conditions(whole, merged, leaf_paths(data))
    return merged


def _tables(value: Any, folder: Path) -> Any:
    """The same content with the rows of CSV files where `levels` of a measured device names one."""
    if not isinstance(value, dict):
        return value
    fields = {key: _tables(one, folder) for key, one in cast(dict[str, Any], value).items()}
    if isinstance(fields.get("levels"), str):
        fields["levels"] = _rows(folder / fields["levels"])
    return fields


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = "no text in UTF-8" if isinstance(error, UnicodeDecodeError) else error.strerror
        raise ChipError(
            f"levels: {path}: {why}; give a CSV file with the columns target, mean, sd and perhaps read, in siemens"
        ) from None
    table = csv.DictReader((line for line in lines if line.strip() and not line.startswith("#")), skipinitialspace=True)
    return [{str(name).strip(): cell for name, cell in row.items()} for row in table]


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        both = isinstance(old, dict) and isinstance(value, dict)
        merged[key] = _merge_part(cast(dict[str, Any], old), cast(dict[str, Any], value)) if both else value
    return merged


def _merge_part(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Parts of one kind merge; another kind shares no fields and replaces."""
    return _merge(old, new) if new.get("kind", old.get("kind")) == old.get("kind") else new
