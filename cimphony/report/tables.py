"""What records say, as plain tables of text: the terminal and the HTML report show the same ones."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from cimphony.record import Record
from cimphony.report.words import MISSING, against, age_words, factor, number, quantity, share, spread


@dataclass(frozen=True)
class Table:
    """A caption, named columns, rows of text; `numeric` columns are set to the right."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: frozenset[int] = frozenset()


def chip_name(record: Record) -> str:
    """Name of the chip of a record."""
    return str((record.chip or {}).get("name", MISSING))


def measure(results: dict[str, Any]) -> str:
    """What was measured: `perplexity per byte`."""
    return f"{results.get('metric', 'metric')} {results.get('unit') or ''}".strip()


def series(records: Iterable[Record]) -> list[list[Record]]:
    """Evaluations that may stand in one table: the same model, data and metric."""
    together: dict[tuple[str, ...], list[Record]] = {}
    for record in records:
        keys = (record.settings.get("model"), record.settings.get("data"), measure(record.results))
        together.setdefault(tuple(map(str, keys)), []).append(record)
    return list(together.values())


def accuracy_table(records: Sequence[Record]) -> Table:
    """Digital beside every chip, age and fidelity of one series: mean and spread over chip seeds."""
    results = records[0].results
    name = measure(results)
    caption = f"{name.capitalize()}, {'higher' if results.get('higher_is_better') else 'lower'} is better"
    rows = [("digital", MISSING, MISSING, number(results.get("digital")), MISSING, MISSING)]
    rows += [_accuracy_row(record, group) for record in records for group in record.results.get("groups", [])]
    columns = ("Chip", "Age", "Reads", name.capitalize(), "Against digital", "Chips made")
    return Table(caption, columns, tuple(rows), frozenset((3, 4, 5)))


def _accuracy_row(record: Record, group: dict[str, Any]) -> tuple[str, ...]:
    results = record.results
    return (
        chip_name(record),
        age_words(group["age"]),
        group["fidelity"],
        spread(group["mean"], group.get("sd")),
        against(group["mean"], results.get("digital"), bool(results.get("higher_is_better"))),
        str(group["n"]),
    )


def cost_table(results: dict[str, Any]) -> Table:
    """Energy, latency, throughput and area of every chip side by side; ratios to the last chip."""
    reports = results.get("reports", [])
    last = reports[-1] if len(reports) > 1 else None
    columns = ("Chip", "Energy", "Latency", "Throughput", "Area")
    if last:
        columns = (*columns, f"Energy against {last['chip']}", f"Latency against {last['chip']}")
    rows = [_cost_row(report, last) for report in reports]
    return Table("Cost of one request", columns, tuple(rows), frozenset(range(1, len(columns))))


def _cost_row(report: dict[str, Any], last: dict[str, Any] | None) -> tuple[str, ...]:
    row = (
        str(report["chip"]),
        quantity(report.get("energy"), "J"),
        quantity(report.get("latency"), "s"),
        quantity(report.get("throughput"), "/s"),
        quantity(report.get("area") or None, "m2"),
    )
    if last is None:
        return row
    return (*row, *(factor(report.get(key), last.get(key)) for key in ("energy", "latency")))


def breakdown_table(report: dict[str, Any], by: str, most: int = 40) -> Table:
    """Energy, latency and area of one chip by component, layer, phase or operation, largest energy first."""
    parts = sorted(report.get("by", {}).get(by, []), key=lambda part: -part.get("energy", 0.0))
    rows = [_breakdown_row(part, report) for part in parts[:most]]
    if parts[most:]:
        rest = {key: sum(part.get(key) or 0.0 for part in parts[most:]) for key in ("energy", "latency", "area")}
        rows.append(_breakdown_row({"name": f"{len(parts) - most} smaller ones", **rest}, report))
    columns = (by.capitalize(), "Energy", "Share", "Latency", "Area")
    return Table(f"{report['chip']} by {by}", columns, tuple(rows), frozenset((1, 2, 3, 4)))


def _breakdown_row(part: dict[str, Any], report: dict[str, Any]) -> tuple[str, ...]:
    energy = part.get("energy") or 0.0
    return (
        str(part["name"]),
        quantity(energy, "J"),
        share(energy, report.get("energy") or 0.0),
        quantity(part.get("latency") or None, "s"),
        quantity(part.get("area") or None, "m2"),
    )


def mapping_table(caption: str, rows: Sequence[dict[str, Any]], first: str = "") -> Table:
    """Rows of names and values that share most names; a column that says nothing is left out."""
    names = dict.fromkeys(name for row in rows for name, value in row.items() if value not in (None, "", [], {}))
    columns = tuple(sorted(names, key=lambda name: name != first))
    text = tuple(tuple(plain(row.get(name)) for name in columns) for row in rows)
    return Table(caption, tuple(name.replace("_", " ").capitalize() for name in columns), text)


def plain(value: Any) -> str:
    """Any value of a record in a few words."""
    if value is None or value == "":
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return number(value)
    if isinstance(value, dict):
        return ", ".join(f"{key} {plain(one)}" for key, one in value.items())
    return ", ".join(map(plain, value)) if isinstance(value, (list, tuple)) else str(value)
