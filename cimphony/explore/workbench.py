"""What the page asks: the cost of a turned chip beside the one it began as, and to keep it as YAML."""

import re
from collections.abc import Mapping
from functools import lru_cache, partial
from pathlib import Path
from threading import Lock
from typing import Any

import yaml

from cimphony.chip import Chip
from cimphony.cost import estimate
from cimphony.cost.report import VIEWS
from cimphony.errors import DataError
from cimphony.explore.knobs import knobs
from cimphony.report import Table, breakdown_table, cost_table
from cimphony.units import format_quantity
from cimphony.workload import Workload

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,59}")
_KEPT = 64  # workloads


class Workbench:
    """One model, some chips by name, one folder that may be written to."""

    def __init__(self, model: str, chips: Mapping[str, Chip], folder: Path) -> None:
        self.model, self.chips, self.folder = model, dict(chips), folder
        self._traced, self._tracing = lru_cache(_KEPT)(partial(_traced, model)), Lock()

    def knobs(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """The knobs of a chip as plain data, with the words for every value."""
        return {
            "knobs": [
                {
                    "path": one.path, "label": one.label, "values": one.values, "at": one.values.index(one.value),
                    "words": [format_quantity(value, one.unit, 2) if one.unit else str(value) for value in one.values],
                }
                for one in knobs(self._base(asked))
            ]
        }  # fmt: skip

    def cost(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """The tables that `cimphony cost` prints of the turned chip and the one it began as, and its breakdowns."""
        base, chip = self._base(asked), self.chip(asked)
        with self._tracing:  # one at a time, so that none is traced twice
            work = self._traced(**_sizes(asked))
        ours, theirs = (estimate(work, one).to_dict() for one in (chip, base))
        told = cost_table({"reports": [ours, theirs | {"chip": f"{base.name}, as it was"}]})
        return {
            "report": {key: ours[key] for key in ("totals", "chips", "utilisation", "assumptions")},
            "base": theirs["totals"],
            "table": _plain(told),
            "tables": {view: _plain(breakdown_table(ours, view)) for view in VIEWS},
        }

    def chip(self, asked: Mapping[str, Any]) -> Chip:
        """The chip with its knobs turned. Raises ChipError where it cannot be."""
        chip, changes = self._base(asked), dict(_mapping(asked, "changes"))
        node = changes.pop("node", None)
        written = _written(str(asked.get("more") or ""))
        chip = chip if node is None else chip.replace({"node": node})
        return chip.replace({**changes, **written}) if changes or written else chip

    def save(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Keep the chip as YAML in the folder, under a name that is not taken; how to cost it from a terminal."""
        name = str(asked.get("name", ""))
        if not _NAME.fullmatch(name):
            raise DataError(f"name {name!r} is not possible; use letters, digits, '-', '_' and '.', at most 60")
        chip = self.chip(asked).replace({"name": name})
        path = self.folder / f"{name.removesuffix('.yaml')}.yaml"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with path.open("x", encoding="utf-8") as file:  # never over another file, nor through a link
                file.write(chip.to_yaml())
        except FileExistsError:
            raise DataError(f"{path} is there already; choose another name") from None
        except OSError as error:
            raise DataError(f"{path} cannot be written: {error.strerror}") from None
        sizes = " ".join(f"--{field.replace('_', '-')} {value}" for field, value in _sizes(asked).items())
        return {"saved": str(path), "command": f"cimphony cost {self.model} --chip {path} {sizes}"}

    def _base(self, asked: Mapping[str, Any]) -> Chip:
        name = asked.get("chip")
        if name not in self.chips:
            raise DataError(f"chip {name!r} is not here; choose one of {', '.join(self.chips)}")
        return self.chips[name]


def _traced(model: str, **sizes: Any) -> Workload:
    from cimphony.nn.trace import trace  # torch, seconds: at the first question

    return trace(model, **sizes)


def _sizes(asked: Mapping[str, Any]) -> dict[str, Any]:
    return {name: asked.get(name, usual) for name, usual in (("prompt", 128), ("new_tokens", 0), ("batch", 1))}


def _mapping(asked: Mapping[str, Any], field: str) -> Mapping[str, Any]:
    found = asked.get(field) or {}
    if not isinstance(found, dict):
        raise DataError(f"{field} is a mapping of dotted fields to values, not {type(found).__name__}")
    return found


def _written(text: str) -> dict[str, Any]:
    """Fields as a user writes them, one a line: `units.analog.schedule.overlap: true`."""
    try:
        found = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise DataError(f"other fields: not YAML: {str(error).splitlines()[0]}") from None
    if not isinstance(found, dict):
        raise DataError("other fields: write one a line, as units.analog.cycle: 50.0e-9")
    return {str(path): value for path, value in found.items()}


def _plain(table: Table) -> dict[str, Any]:
    return {"caption": table.caption, "columns": table.columns, "rows": table.rows, "note": table.note}
