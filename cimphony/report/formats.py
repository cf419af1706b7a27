"""Reports for other programs: the tables as Markdown; every measured number as rows of CSV or JSON."""

import csv
import io
import json
from collections.abc import Iterable, Sequence
from typing import Any

from cimphony.record import Record
from cimphony.report.study import axes_of, failures_table, front_table, measures_of, sort_out, spread_of
from cimphony.report.tables import (
    Table,
    accuracy_table,
    assumptions_of,
    chip_name,
    claims_table,
    cost_table,
    is_table,
    mapping_table,
    measure,
    model_name,
    plain,
    series,
)


def to_markdown(records: Sequence[Record], title: str) -> str:
    """The tables of a report, its assumptions and its runs."""
    found, runs = sort_out(records)
    told = [*runs, *(study.overview() for study in found)]
    tables = [table for study in found for table in (front_table(study), failures_table(study))]
    parts = [f"# {_text(title)}", *(_table(table) for table in tables if table.rows)]
    parts += [_table(accuracy_table(same)) for same in series(run for run in runs if run.kind == "evaluation")]
    parts += [_table(cost_table(run.results)) for run in runs if run.kind == "cost"]
    parts += [_table(claims_table(run.results)) for run in runs if run.kind == "claims"]
    parts += [
        _table(mapping_table(f"{run.title}: {name}", rows))
        for run in runs if run.kind in ("study", "training")
        for name, rows in run.results.items() if is_table(rows)
    ]  # fmt: skip
    said = [f"- {_text(one)}" for one in assumptions_of(told)]
    parts += ["## Assumptions\n\n" + "\n".join(said)] if said else []
    made = [f"- {_text(run.title)}: {run.created[:16]} UTC, {_text(plain(run.versions))}" for run in told]
    return "\n\n".join([*parts, "## How this was made\n\n" + "\n".join(made)]) + "\n"


def to_csv(records: Sequence[Record]) -> str:
    """One line for each measured point, chip or claim, at full precision; the columns are those of all of them."""
    rows = list(to_rows(records))
    columns = dict.fromkeys(name for row in rows for name in row)
    out = io.StringIO()
    writer = csv.DictWriter(out, list(columns))
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def to_json(records: Sequence[Record]) -> str:
    """The rows of the CSV as JSON."""
    return json.dumps(list(to_rows(records)), indent=1, ensure_ascii=False) + "\n"


def to_rows(records: Sequence[Record]) -> Iterable[dict[str, Any]]:
    """Points of studies and evaluations, chips of cost records, claims, and whatever else stands in rows."""
    found, runs = sort_out(records)
    for study in found:
        yield from map(_point, study.points)
    for run in runs:
        yield from ({"run": run.title, "kind": run.kind, **row} for row in _rows(run))


def _point(point: Record) -> dict[str, Any]:
    spreads = {f"{name} spread": spread_of(point, name) for name in point.results.get("spread") or {}}
    row = {"run": point.settings["study"], "kind": "point", **axes_of(point), **measures_of(point)}
    return row | spreads | {key: point.results.get(key, "") for key in ("status", "message")}


def _rows(record: Record) -> list[dict[str, Any]]:
    results = record.results
    if record.kind == "evaluation":
        same = {"model": model_name(record.settings), "chip": chip_name(record), "measure": measure(results)}
        return [{**same, "digital": results.get("digital"), **point} for point in results.get("points", [])]
    if record.kind == "cost":
        return [{"model": one["model"], "chip": one["chip"], **one["totals"]} for one in results.get("reports", [])]
    if record.kind == "claims":
        return results.get("claims", [])
    tables = [{"table": name, **row} for name, rows in results.items() if is_table(rows) for row in rows]
    return tables or [{name: value for name, value in results.items() if not isinstance(value, dict | list)}]


def _table(table: Table) -> str:
    rows = [table.columns, ["---:" if at in table.numeric else "---" for at in range(len(table.columns))], *table.rows]
    lines = ["| " + " | ".join(map(_text, row)) + " |" for row in rows]
    return "\n".join([f"## {_text(table.caption)}", "", *lines, *(["", _text(table.note)] if table.note else [])])


def _text(words: str) -> str:
    """Markdown reads HTML, and bars end a cell."""
    for sign, name in (("&", "&amp;"), ("<", "&lt;"), ("|", "\\|"), ("\n", " "), ("\r", " ")):
        words = words.replace(sign, name)
    return words
