"""The page: records in, one self-contained HTML file out. No network, no fonts, no cookies."""

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from importlib.resources import files
from pathlib import Path

from cimphony.errors import DataError
from cimphony.record import Record
from cimphony.report import sections
from cimphony.report.html import Html, element

_HERE = files("cimphony") / "report"


def render_report(records: Sequence[Record], title: str | None = None) -> str:
    """The HTML of a report of one or more records."""
    if not records:
        raise DataError("a report needs at least one record; give the JSON files that a run wrote")
    title = title or (records[0].title if len(records) == 1 else "Cimphony report")
    figures: sections.Figures = {}
    evaluations = [record for record in records if record.kind == "evaluation"]
    costs = [record for record in records if record.kind == "cost"]
    body = [
        sections.headline(records),
        sections.evaluation(evaluations, figures) if evaluations else "",
        sections.cost(costs, figures) if costs else "",
        [sections.claims(record, figures) for record in records if record.kind == "claims"],
        [sections.other(record, figures) for record in records if record.kind not in ("evaluation", "cost", "claims")],
        sections.assumptions(records),
        sections.layers(records),
        sections.chips(records),
        sections.provenance(records),
    ]
    dates = sorted({record.created[:10] for record in records})
    return _page(title, f"Simulated, {' to '.join(dict.fromkeys((dates[0], dates[-1])))}", body, figures)


def write_report(records: Sequence[Record], path: str | Path, *, title: str | None = None) -> Path:
    """Write the report atomically: readers of the file see the old page or the new one, never half of one."""
    text, target = render_report(records, title), Path(path)
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, target)
    except OSError as error:
        raise DataError(f"report {str(target)!r} cannot be written: {error.strerror}; choose another file") from None
    finally:
        with suppress(OSError):
            partial.unlink()
    return target


def _page(title: str, subtitle: str, body: list[Html | str | list[Html]], figures: sections.Figures) -> str:
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", title),
        element("style", Html(_read("style.css"))),
    )
    top = element(
        "header", element("p", "Cimphony", class_="brand"), element("h1", title), element("p", subtitle, class_="quiet")
    )
    without = element("noscript", element("p", "The plots need JavaScript; the tables say the same.", class_="note"))
    content = element("body", top, without, element("main", body), _scripts(figures))
    return f"<!doctype html>\n{element('html', head, content, lang='en')}\n"


def _scripts(figures: sections.Figures) -> Html:
    if not figures:
        return Html("")
    data = json.dumps(figures).replace("<", "\\u003c")  # a name cannot close the script element
    plotly = (files("plotly") / "package_data" / "plotly.min.js").read_text(encoding="utf-8")
    return Html(
        element("script", Html(data), type="application/json", id="figures")
        + element("script", Html(plotly))
        + element("script", Html(_read("page.js")))
    )


def _read(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")
