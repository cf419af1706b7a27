"""The sections of a report: records in, HTML out; every plot has its data beside it."""

import json
from collections.abc import Sequence
from typing import Any

import yaml

from cimphony.record import Record
from cimphony.report.figures import (
    Figure,
    accuracy_figure,
    claims_figure,
    cost_figures,
    placement_figure,
    sensitivity_figure,
    share_figure,
)
from cimphony.report.html import Html, bullets, element, fold, grey_image, pairs, table
from cimphony.report.layers import layers_table
from cimphony.report.study import Study, columns, failures_table, front_table
from cimphony.report.tables import (
    Table,
    accuracy_table,
    assumptions_of,
    breakdown_table,
    chip_name,
    claims_table,
    cost_table,
    higher_is_better,
    is_table,
    mapping_table,
    measure,
    model_name,
    ordered,
    partly_costed,
    plain,
    series,
)
from cimphony.report.words import MISSING, against, age_words, factor, number, quantity, share, spread

PLOT_DATA, STUDY_DATA = "plot-data", "study-data"  # classes of the scripts that hold what is drawn
_INTERRUPTED = "Interrupted: only finished points are here."
_SHORT = 20  # a longer list of assumptions is folded


def headline(records: Sequence[Record]) -> Html:
    """The answers in one sentence each."""
    sentences = [_evaluation_sentence(record) for record in records if record.results.get("groups")]
    sentences += [_cost_sentence(record) for record in records if len(record.results.get("reports", [])) > 1]
    return element("section", bullets(sentences), class_="answers", aria_label="Answers") if sentences else Html("")


def _evaluation_sentence(record: Record) -> Html:
    results = record.results
    groups = ordered(results)
    first, digital = groups[0], results.get("digital")
    changes = [
        f"{age_words(group['age'])} {against(group['mean'], digital, higher_is_better(results))}"
        for group in groups
        if group["fidelity"] == first["fidelity"]
    ]
    lead = element("strong", spread(first["mean"], first.get("sd")))
    rest = f" {measure(results)} on {chip_name(record)}, {first['fidelity']} reads"
    rest += f"; digital {number(digital)}: {', '.join(changes)}"
    return Html(lead + element("span", rest))


def _cost_sentence(record: Record) -> Html:
    reports = record.results["reports"]
    last = reports[-1]
    whole = [one for one in reports if not partly_costed(one)]
    best = min(whole, default=last, key=lambda report: report["totals"]["energy"])
    totals = best["totals"]
    lead = element("strong", f"{quantity(totals['energy'], 'J')} and {quantity(totals['latency'], 's')} a request")
    if best is last:
        return Html(lead + element("span", f" on {best['chip']}, the least energy of {len(reports)} chips"))
    energy = factor(last["totals"]["energy"], totals["energy"])
    return Html(lead + element("span", f" on {best['chip']}: {last['chip']} takes {energy} the energy"))


def evaluation(records: Sequence[Record]) -> Html:
    """Accuracy: a table and a plot for every model, data and metric."""
    parts = []
    for together in series(records):
        settings = together[0].settings
        named = (("model", model_name(settings)), ("text", plain(settings.get("data", ""))))
        name = ", ".join(f"{kind} {one}" for kind, one in named if one not in ("", MISSING)).capitalize()
        plotted, measured = accuracy_figure(together), measure(together[0].results)
        label = f"Plot of {measured}: one point per simulated chip, the mean, one standard deviation"
        caption = "One point per simulated chip; the bar is the mean, its whisker one standard deviation."
        parts += [
            element("h3", name) if name else "",
            table(accuracy_table(together)),
            plot(plotted, label, caption) if plotted["data"] else "",
            "" if all(record.complete for record in together) else note(_INTERRUPTED),
        ]
    return section("Does the model still work?", *parts)


def cost(records: Sequence[Record]) -> Html:
    """Cost: chips side by side, and where each one's energy goes."""
    parts = []
    for record in records:
        reports = record.results.get("reports", [])
        panels = [
            plot(figure, f"{key} of every chip", f"{key.capitalize()} (each line a factor of ten)")
            for key, figure in cost_figures(reports).items()
        ]
        parts += [
            element("h3", record.results.get("model", record.title)),
            table(cost_table(record.results)),
            element("div", panels, class_="panels"),
            _shares(reports),
            *(_placement(report) for report in reports),
            *(_breakdowns(report) for report in reports),
        ]
    return section("What does it cost?", *parts)


def _placement(report: dict[str, Any]) -> Html:
    figure = placement_figure(report)
    if figure is None:
        return Html("")
    used = share(report["utilisation"], 1.0)
    caption = f"Where the weights sit on {report['chip']}: a colour for each block, {used} of the arrays taken."
    return plot(figure, f"Placement on {report['chip']}", caption)


def _shares(reports: Sequence[dict[str, Any]]) -> Html:
    figure = share_figure(reports, "component")
    if not figure["data"]:
        return Html("")
    return plot(figure, "Share of the energy of every chip by component", key(figure))


def key(figure: Figure) -> list[Html]:
    """What the colours of a plot mean; unlike Plotly's legend it wraps."""
    named = [(trace["name"], trace["marker"]["color"]) for trace in figure["data"]]
    items = [element("li", element("i", style=f"background:{colour}"), Html(name)) for name, colour in named]
    return [element("p", "Where the energy goes, by component:"), element("ul", items, class_="key")]


def _breakdowns(report: dict[str, Any]) -> Html:
    tables = [table(breakdown_table(report, by)) for by in report.get("by", {}) if report["by"][by]]
    return fold(f"{report['chip']}: by component, layer, phase and operation", _totals(report), tables)


def _totals(report: dict[str, Any]) -> Html:
    totals = report["totals"]
    kinds = (("energy", "J"), ("dynamic_energy", "J"), ("static_energy", "J"), ("link_energy", "J"), ("latency", "s"),
             ("interval", "s"), ("tokens_per_second", "/s"), ("power", "W"))  # fmt: skip
    named = [(name.replace("_", " ").capitalize(), quantity(totals.get(name), unit)) for name, unit in kinds]
    return pairs([*named, ("Weights fill", share(report.get("utilisation") or 0.0, 1.0))])


def layers(records: Sequence[Record]) -> Html:
    """What was really applied, layer by layer, once for every chip."""
    parts = []
    for record in _once(records, lambda record: (record.chip, record.layers)):
        if record.layers:
            caption = f"{chip_name(record)}: {len({row['layer'] for row in record.layers})} layers and the rest"
            parts.append(fold(caption, table(layers_table(caption, record.layers))))
    return section("What was applied, layer by layer", *parts, kind="folds") if parts else Html("")


def assumptions(records: Sequence[Record]) -> Html:
    """Every assumption once, with the chips it belongs to."""
    items = [
        [one, element("span", f" ({', '.join(chips)})", class_="quiet") if chips else ""]
        for one, chips in assumptions_of(records).items()
    ]
    if len(items) > _SHORT:
        return section("Assumptions", fold(f"All {len(items)}", bullets(items)))
    return section("Assumptions", bullets(items)) if items else Html("")


def chips(records: Sequence[Record]) -> Html:
    """Every chip as YAML: what a reader needs to run it again."""
    found = [record.chip for record in records if record.chip]
    found += [chip for record in records for chip in record.results.get("chips", [])]
    parts = []
    for chip in {repr(chip): chip for chip in found}.values():
        text = yaml.safe_dump(chip, sort_keys=False, allow_unicode=True, width=100)
        code = element("pre", element("code", text), tabindex="0", aria_label="Chip as YAML")
        parts.append(fold(chip.get("name", "chip"), code))
    return section("Chips", *parts, kind="folds") if parts else Html("")


def claims(record: Record) -> Html:
    """A paper's claims beside ours, and its figures drawn again."""
    results = record.results
    counts = [(verdict.capitalize(), number) for verdict, number in results.get("counts", {}).items()]
    drawn = [redrawn(one) for one in results.get("figures", [])]
    moved = results.get("sensitivity")
    if moved:
        drawn.append(table(mapping_table("What moves the ratios, one assumption changed", moved)))
    meanings = [(name.capitalize(), meaning) for name, meaning in results.get("statuses", {}).items()]
    return section(record.title, pairs(counts), table(claims_table(results)), element("div", drawn, class_="panels"),
                   fold("What the statuses mean", pairs(meanings)))  # fmt: skip


def redrawn(drawn: dict[str, Any]) -> Html:
    """A figure of a paper: a plot, or pictures side by side, each with its name below."""
    caption = f"Figure {drawn['figure']}: {drawn['title']}"
    if "series" in drawn:
        return plot(claims_figure(drawn), f"Figure {drawn['figure']} drawn again", caption)
    images = [
        element("figure", grey_image(one["rows"], one["name"]), element("figcaption", one["name"]))
        for one in drawn["pictures"]
    ]
    return element("figure", element("div", images, class_="gallery"), element("figcaption", caption), class_="across")


def study(found: Study) -> Html:
    """A study: its front as a table, and the data that the script draws everything else from."""
    failed = failures_table(found)
    counted = {"Points": len(found.points), "Failed": sum(int(row[1]) for row in failed.rows), "Axes": len(found.axes)}
    text = json.dumps(columns(found), separators=(",", ":"), allow_nan=False)
    question = str(found.summary.settings.get("question") or "") if found.summary else ""
    unfinished = found.summary is not None and not found.summary.complete
    return section(
        found.name,
        element("p", question) if question else "",
        note(_INTERRUPTED) if unfinished else "",
        pairs(counted.items()),
        element("div", embedded(text, class_=STUDY_DATA), class_="study"),
        fold("The front as a table", table(front_table(found))),
        fold("What failed", table(failed)) if failed.rows else "",
    )


def embedded(data: str, **attributes: Any) -> Html:
    """JSON for a script of the page; a name in it cannot close the element."""
    return element("script", Html(data.replace("<", "\\u003c")), type="application/json", **attributes)


def other(record: Record) -> Html:
    """A record of another kind: its numbers as they are, and the figures it brings."""
    results = {name: value for name, value in record.results.items() if name != "figures"}
    single = [(name, value) for name, value in results.items() if not is_table(value)]
    parts = [pairs((name.replace("_", " ").capitalize(), plain(value)) for name, value in single)]
    parts += _heat_maps(record)
    parts += [plot(claims_figure(one), one["title"], one["title"]) for one in record.results.get("figures", [])]
    parts += [table(mapping_table(name, rows)) for name, rows in results.items() if is_table(rows)]
    return section(record.title, *parts)


def _heat_maps(record: Record) -> list[Html]:
    """Which layers suffer, of a record of `sensitivity`."""
    rows, found = record.results.get("rows", []), list[Html]()
    said = {"harm": "What noise in one layer alone costs", "relief": "What one clean layer wins among noisy ones"}
    for what, words in said.items():
        figure = sensitivity_figure(rows, what) if is_table(rows) and all(what in row for row in rows) else None
        if figure:
            found.append(plot(figure, words, f"{words}, in {record.results.get('metric', 'the metric')}."))
    return found


def provenance(records: Sequence[Record]) -> Html:
    """Settings, times and versions: how each number was made."""
    rows = [
        (
            record.title, record.kind, record.created[:16].replace("T", " "), quantity(record.duration, "s"),
            "complete" if record.complete else "interrupted",
        )
        for record in records
    ]  # fmt: skip
    columns = ("Run", "Kind", "Began (UTC)", "Took", "State")
    software = [pairs(record.versions.items()) for record in _once(records, lambda record: record.versions)]
    runs = table(Table("Runs", columns, tuple(rows), frozenset((3,))))
    settings = [element("p", element("b", record.title), ": ", plain(record.settings)) for record in records]
    return section("How this was made", runs, *software, fold("Settings", settings))


def section(title: str, *children: Any, kind: str | None = None) -> Html:
    """A section under its heading."""
    return element("section", element("h2", title), *children, class_=kind)


def note(text: str) -> Html:
    """A remark that must not be missed."""
    return element("p", text, class_="note", role="note")


def plot(figure: Figure, label: str, caption: Any) -> Html:
    """A place for a plot and its data; the script at the end of the page draws it."""
    height = f"height:{figure['layout']['height']}px"
    place = element("div", class_="plot", role="img", aria_label=label, style=height)
    return element("figure", place, embedded(json.dumps(figure), class_=PLOT_DATA), element("figcaption", caption))


def _once(records: Any, key: Any) -> list[Record]:
    found: dict[str, Record] = {}
    for record in records:
        found.setdefault(repr(key(record)), record)
    return list(found.values())
