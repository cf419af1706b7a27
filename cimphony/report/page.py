"""The page: records in, one self-contained HTML file out. No network, no fonts, no cookies."""

from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Literal

from cimphony.errors import DataError
from cimphony.record import Record, write_text
from cimphony.report import sections
from cimphony.report.formats import to_csv, to_json, to_markdown
from cimphony.report.html import Html, element
from cimphony.report.study import sort_out

Format = Literal["html", "md", "csv", "json"]  # the page, its tables, every number
_HERE = files("cimphony") / "report"
_NO_RECORDS = "a report needs at least one record; give the JSON files that a run wrote"


def render_report(records: Sequence[Record], title: str | None = None) -> str:
    """The HTML of a report of one or more records."""
    if not records:
        raise DataError(_NO_RECORDS)
    found, runs = sort_out(records)
    told = [*runs, *(study.overview() for study in found)]
    title = title or (told[0].title if len(told) == 1 else "Cimphony report")
    evaluations = [record for record in runs if record.kind == "evaluation"]
    costs = [record for record in runs if record.kind == "cost"]
    body = [
        sections.headline(runs),
        [sections.study(study) for study in found],
        sections.evaluation(evaluations) if evaluations else "",
        sections.cost(costs) if costs else "",
        [sections.claims(record) for record in runs if record.kind == "claims"],
        [sections.other(record) for record in runs if record.kind not in ("evaluation", "cost", "claims")],
        sections.assumptions(told),
        sections.layers(runs),
        sections.chips(told),
        sections.provenance(told),
    ]
    dates = sorted({record.created[:10] for record in records})
    return _page(title, f"Simulated, {' to '.join(dict.fromkeys((dates[0], dates[-1])))}", element("main", body))


def write_report(records: Sequence[Record], path: str | Path, *, title: str | None = None, form: str = "html") -> Path:
    """Write the report atomically: readers of the file see the old page or the new one, never half of one."""
    if not records:
        raise DataError(_NO_RECORDS)
    writers: dict[str, Callable[[], str]] = {
        "html": lambda: render_report(records, title),
        "md": lambda: to_markdown(records, title or "Cimphony report"),
        "csv": lambda: to_csv(records),
        "json": lambda: to_json(records),
    }
    if form not in writers:
        raise DataError(f"format {form!r} is unknown; choose one of {', '.join(writers)}")
    return write_text(writers[form](), path, "report")


def _page(title: str, subtitle: str, main: Html) -> str:
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
    content = element("body", top, without, main, _scripts(main))
    return f"<!doctype html>\n{element('html', head, content, lang='en')}\n"


def _scripts(main: Html) -> list[Html]:
    """What draws the plots and the studies of a page, if it has any."""
    texts: list[str] = []
    if sections.PLOT_DATA in main:
        texts += [(files("plotly") / "package_data" / "plotly.min.js").read_text(encoding="utf-8"), _read("page.js")]
    if sections.STUDY_DATA in main:
        texts.append(_read("study.js"))
    return [element("script", Html(text)) for text in texts]


def _read(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")
