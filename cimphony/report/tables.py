"""What records say, as plain tables of text: the terminal and the HTML report show the same ones."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from cimphony.record import Record
from cimphony.report.words import MISSING, against, age_words, factor, number, quantity, share, spread

_NUMBERS = frozenset((1, 2, 3))
_LESS = ("perplexity", "loss", "error", "energy", "latency", "interval", "area", "power", "chips")
PARTLY_NOTE = (
    "* has no unit for some matrix products: they are not in these numbers (see the assumptions, in --json or a report)"
)
_NATURAL = ("excluded", "not included", "a table look-up, exact", "computed exactly in the model's own precision")


@dataclass(frozen=True)
class Table:
    """A caption, named columns, rows of text; `numeric` columns are set to the right."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: frozenset[int] = frozenset()
    note: str = ""

    def without(self, *names: str) -> "Table":
        """The same table without some columns."""
        kept = [position for position, name in enumerate(self.columns) if name not in names]
        rows = tuple(tuple(row[position] for position in kept) for row in self.rows)
        numeric = frozenset(new for new, old in enumerate(kept) if old in self.numeric)
        return Table(self.caption, tuple(self.columns[position] for position in kept), rows, numeric, self.note)


def chip_name(record: Record) -> str:
    """Name of the chip of a record."""
    return str((record.chip or {}).get("name", MISSING))


def measure(results: dict[str, Any]) -> str:
    """What was measured: `perplexity per byte`."""
    return str(results.get("metric", "metric"))


def higher_is_better(results: dict[str, Any]) -> bool:
    """True for accuracy and whatever else is not a perplexity, loss, error or cost."""
    return not lower_is_better(measure(results))


def lower_is_better(name: str) -> bool:
    """True for a perplexity, loss, error or cost, by its name."""
    return any(word in name.lower() for word in _LESS)


def model_name(settings: dict[str, Any]) -> str:
    """The model as the user named it, else its class."""
    model = settings.get("name") or settings.get("model") or ""
    return str(model.get("class", "")) if isinstance(model, dict) else str(model)


def series(records: Iterable[Record]) -> list[list[Record]]:
    """Evaluations that may stand in one table: the same model, data and metric."""
    together: dict[tuple[str, ...], list[Record]] = {}
    for record in records:
        settings = record.settings
        keys = (settings.get("name"), settings.get("model"), settings.get("data"), measure(record.results))
        together.setdefault(tuple(map(str, keys)), []).append(record)
    return list(together.values())


def assumptions_of(records: Iterable[Record]) -> dict[str, list[str]]:
    """Every assumption once, with the names of the chips it belongs to."""
    found: dict[str, dict[str, None]] = {}
    for record in records:
        for one in (*_learnt(record), *record.assumptions, *(record.chip or {}).get("notes", ())):
            found.setdefault(one, {}).update({chip_name(record): None} if record.chip else {})
        for report in record.results.get("reports", []):
            for one in report.get("assumptions", []):
                found.setdefault(one, {})[str(report["chip"])] = None
    return {one: list(names) for one, names in found.items()}


def _learnt(record: Record) -> list[str]:
    """What the ranges of an evaluation were learnt from."""
    said = record.settings.get("calibration") if record.kind == "evaluation" else None
    return [f"ranges of inputs and converters were learnt from {said}"] if isinstance(said, str) else []


def accuracy_table(records: Sequence[Record]) -> Table:
    """Digital beside every chip, age and fidelity of one series: mean and spread over chip seeds."""
    results = records[0].results
    name = measure(results)
    caption = f"{name.capitalize()}, {'higher' if higher_is_better(results) else 'lower'} is better"
    if any(group.get("sd") is not None for record in records for group in ordered(record.results)):
        caption += "; ± is one standard deviation over chips"
    rows = [("digital", MISSING, MISSING, number(results.get("digital")), MISSING, MISSING)]
    rows += [_accuracy_row(record, group) for record in records for group in ordered(record.results)]
    columns = ("Chip", "Age", "Reads", name.capitalize(), "Against digital", "Chips")
    return Table(caption, columns, tuple(rows), frozenset((3, 4, 5)), _left_out(records))


def _left_out(records: Sequence[Record]) -> str:
    """Layers with weights that are digital though nobody asked for it."""
    digital = [row for record in records for row in record.layers if row.get("runs_on") == "digital"]
    names = list(dict.fromkeys(str(row["layer"]) for row in digital if row.get("why") not in _NATURAL))
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"not on the chip: {', '.join(names[:3])}{more} (why: see the layers in the report)" if names else ""


def ordered(results: dict[str, Any]) -> list[dict[str, Any]]:
    """Groups of an evaluation, exact reads first, then by age."""
    return sorted(results.get("groups", []), key=lambda group: (group["fidelity"] != "exact", group["age"]))


def _accuracy_row(record: Record, group: dict[str, Any]) -> tuple[str, ...]:
    results = record.results
    return (
        chip_name(record),
        age_words(group["age"]),
        group["fidelity"],
        spread(group["mean"], group.get("sd")),
        against(group["mean"], results.get("digital"), higher_is_better(results)),
        str(group["chips"]),
    )


def cost_table(results: dict[str, Any]) -> Table:
    """Energy, latency, throughput and area of every chip side by side; ratios to the last chip."""
    reports = results.get("reports", [])
    last = reports[-1] if len(reports) > 1 else None
    columns = ("Chip", "Energy", "Latency", "Throughput", "Area")
    if last:
        columns = (*columns, f"Energy vs\n{last['chip']}", f"Latency vs\n{last['chip']}")
    rows = tuple(_cost_row(report, last) for report in reports)
    note = PARTLY_NOTE if any(partly_costed(report) for report in reports) else ""
    return Table(
        f"Cost of one request{_request(results, reports)}", columns, rows, frozenset(range(1, len(columns))), note
    )


def marked_name(report: dict[str, Any]) -> str:
    """Name of a chip, starred where part of the work is left out."""
    return f"{report['chip']}{' *' if partly_costed(report) else ''}"


def partly_costed(report: dict[str, Any]) -> bool:
    """True where matrix products are left out because the chip has no unit for them."""
    return any("matmul stays digital, not costed" in one for one in report.get("assumptions", []))


def _request(results: dict[str, Any], reports: Sequence[dict[str, Any]]) -> str:
    batch = reports[0].get("batch", 1) if reports else 1
    said = "" if batch == 1 else f" of {batch} sequences"
    if "prompt" not in results:  # an older record, or one without a text
        return said
    new = f", {results['new_tokens']:,} new" if results.get("new_tokens") else ""
    return f"{said}: {results['prompt']:,} tokens of a prompt{new}"


def _cost_row(report: dict[str, Any], last: dict[str, Any] | None) -> tuple[str, ...]:
    totals = report["totals"]
    row = (
        f"{_count(report)}{marked_name(report)}",
        quantity(totals.get("energy"), "J"),
        quantity(totals.get("latency"), "s"),
        quantity(totals.get("throughput"), "/s"),
        quantity(totals.get("area") or None, "m2"),
    )
    if last is None:
        return row
    return (*row, *(factor(totals.get(key), last["totals"].get(key)) for key in ("energy", "latency")))


def _count(report: dict[str, Any]) -> str:
    return f"{report['chips']} × " if report.get("chips", 1) > 1 else ""


def breakdown_table(report: dict[str, Any], by: str, most: int = 40) -> Table:
    """Energy and latency, or area, of one chip by component, layer, phase or operation, largest energy first."""
    parts = sorted(report["by"].get(by, []), key=lambda part: -part["energy"])
    second, unit = ("area", "m2") if by == "component" else ("latency", "s")
    shown = [(str(part[by]), part["energy"], part.get(second, 0.0)) for part in parts]
    if shown[most:]:
        rest = shown[most:]
        shown = [*shown[:most], (f"{len(rest)} smaller ones", sum(one[1] for one in rest), sum(one[2] for one in rest))]
    total = report["totals"]["energy"]
    rows = tuple(
        (name, quantity(energy, "J"), share(energy, total), quantity(other or None, unit))
        for name, energy, other in shown
    )
    return Table(f"{report['chip']} by {by}", (by.capitalize(), "Energy", "Share", second.capitalize()), rows, _NUMBERS)


def claims_table(results: dict[str, Any]) -> Table:
    """A paper's claims: what it says, what comes out here, the verdict."""
    rows = tuple(_claim_row(row) for row in results.get("claims", []))
    columns = ("Claim", "Paper", "Ours", "Ratio", "Verdict", "Where", "Note")
    return Table("Claims of the paper, measured here", columns, rows, frozenset((1, 2, 3)))


def _claim_row(row: dict[str, Any]) -> tuple[str, ...]:
    verdict, status = str(row["verdict"]), str(row["status"])
    return (
        str(row["statement"]),
        f"{number(row['paper'])} {row['unit']}".strip(),
        MISSING if row["ours"] is None else f"{number(row['ours'])} {row['unit']}".strip(),
        number(row["ratio"]),
        verdict if status == verdict else f"{verdict} ({status})",
        str(row["where"]),
        row["note"] or MISSING,
    )


def mapping_table(caption: str, rows: Sequence[dict[str, Any]]) -> Table:
    """Rows of names and values that share most names; a column that says nothing is left out."""
    names = dict.fromkeys(name for row in rows for name, value in row.items() if value not in (None, "", [], {}))
    text = tuple(tuple(plain(row.get(name)) for name in names) for row in rows)
    return Table(caption, tuple(name.replace("_", " ").capitalize() for name in names), text)


def is_table(value: Any) -> bool:
    """True for rows of names and values."""
    return isinstance(value, list) and bool(value) and all(isinstance(row, dict) for row in value)


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
