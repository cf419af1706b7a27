"""Plots as plain data for Plotly. Colours are names of CSS variables, so one figure serves light, dark and print."""

import html
import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

from cimphony.record import Record
from cimphony.report.tables import chip_name, marked_name, measure
from cimphony.report.words import age_words, number, quantity

Figure = dict[str, Any]
_FIDELITIES = {"exact": ("var(--series-1)", "circle", -0.17), "effective": ("var(--series-2)", "diamond", 0.17)}
_SERIES = 8  # colours of style.css that a colour-blind reader can tell apart; the last is for the rest
_PANELS = (("energy", "J"), ("latency", "s"), ("throughput", "/s"), ("area", "m2"))


def accuracy_figure(records: Sequence[Record]) -> Figure:
    """One point per chip seed, mean and spread beside them, the digital model as a line."""
    slots = list(dict.fromkeys((chip_name(r), p["age"]) for r in records for p in r.results.get("points", [])))
    traces = [trace for name in _FIDELITIES for trace in _fidelity_traces(records, slots, name)]
    digital = records[0].results.get("digital")
    shown = [x for trace in traces for x in trace["x"]] + ([] if digital is None else [digital])
    wide = bool(shown) and min(shown) > 0 and max(shown) / min(shown) > 20
    axis = _titled(measure(records[0].results), type="log" if wide else "linear")
    if shown and not wide:
        whiskers = [(g["mean"], g.get("sd") or 0) for r in records for g in r.results.get("groups", [])]
        shown += [end for mean, sd in whiskers for end in (mean - sd, mean + sd)]
        room = 0.06 * (max(shown) - min(shown)) or 0.01
        axis["range"] = [min(shown) - room, max(shown) + room]
    rows = _rows(f"{chip} · {age_words(age)}" for chip, age in slots)
    layout = _layout(70 + 46 * max(1, len(slots)) + 50, axis, rows, showlegend=True)
    if digital is not None:
        traces.append(_digital_line(digital, len(slots)))
    return {"data": traces, "layout": layout}


def _fidelity_traces(records: Sequence[Record], slots: list[tuple[str, float]], fidelity: str) -> list[Figure]:
    colour, symbol, shift = _FIDELITIES[fidelity]
    points, groups = (
        [
            (slots.index((chip_name(record), one["age"])) + shift, one)
            for record in records
            for one in record.results[kind]
            if one["fidelity"] == fidelity
        ]
        for kind in ("points", "groups")
    )
    if not points:
        return []
    common = {"type": "scatter", "mode": "markers", "hoverinfo": "text", "name": f"{fidelity} reads"}
    seeds = common | {
        "x": [point["value"] for _, point in points],
        "y": [row for row, _ in points],
        "text": [f"chip {point['seed']}: {number(point['value'])}" for _, point in points],
        "marker": {"color": colour, "symbol": symbol, "size": 7, "opacity": 0.55},
    }
    whiskers = [group.get("sd") or 0 for _, group in groups]
    means = common | {
        "x": [group["mean"] for _, group in groups],
        "y": [row - 0.13 for row, _ in groups],
        "text": [f"mean {number(group['mean'])}" for _, group in groups],
        "error_x": {"array": whiskers, "color": colour, "thickness": 1.5, "width": 4},
        "marker": {"color": colour, "symbol": "line-ns-open", "size": 12, "line": {"width": 2.5, "color": colour}},
        "showlegend": False,
    }
    return [seeds, means]


def _digital_line(value: float, slots: int) -> Figure:
    return {
        "type": "scatter", "mode": "lines", "name": "digital", "hoverinfo": "text", "text": f"digital: {number(value)}",
        "x": [value, value], "y": [-0.5, slots - 0.5], "line": {"color": "var(--ink)", "width": 1.5, "dash": "dash"},
    }  # fmt: skip


def cost_figures(reports: Sequence[dict[str, Any]]) -> dict[str, Figure]:
    """Energy, latency, throughput and area: a panel each, a dot per chip, on a logarithmic axis."""
    panels = {}
    for key, unit in _PANELS:
        found = [(marked_name(report), report["totals"][key]) for report in reports if report["totals"].get(key)]
        if found:
            panels[key] = _panel(found, unit)
    return panels


def _panel(found: Sequence[tuple[str, float]], unit: str) -> Figure:
    exponents = [math.log10(value) for _, value in found]
    low, high = min(exponents), max(exponents)
    room = max(high - low, 1.0)
    trace = {
        "type": "scatter", "mode": "markers+text", "hoverinfo": "none", "cliponaxis": False,
        "x": [value for _, value in found], "y": list(range(len(found))),
        "text": [_label(quantity(value, unit)) for _, value in found], "textposition": "middle right",
        "textfont": {"color": "var(--ink)"}, "marker": {"color": "var(--series-1)", "size": 9},
    }  # fmt: skip
    axis = {"type": "log", "range": [low - 0.15 * room, high + 0.75 * room], "showticklabels": False, "dtick": 1}
    return {"data": [trace], "layout": _layout(24 + 34 * len(found), axis, _rows(name for name, _ in found))}


def share_figure(reports: Sequence[dict[str, Any]], by: str) -> Figure:
    """Where the energy of every chip goes, as shares of its total; the smallest parts together."""
    shares = [_shares(report, by) for report in reports]
    names = _largest(shares)
    traces = [_bar(name, [one.get(name, 0.0) for one in shares], index) for index, name in enumerate(names)]
    rest = [100 - sum(one.get(name, 0.0) for name in names) if one else 0.0 for one in shares]
    if max(rest, default=0.0) > 1e-6:
        traces.append(_bar("the rest", rest, _SERIES - 1))
    axis = {"ticksuffix": " %", "range": [0, 100], "dtick": 25}
    rows = _rows(map(marked_name, reports))
    layout = _layout(40 + 40 * len(reports), axis, rows, barmode="stack", bargap=0.35)
    return {"data": traces, "layout": layout}


def _shares(report: dict[str, Any], by: str) -> dict[str, float]:
    total = report["totals"]["energy"]
    return {part[by]: 100 * part["energy"] / total for part in report["by"].get(by, []) if part["energy"]}


def _largest(shares: Iterable[dict[str, float]]) -> list[str]:
    best: dict[str, float] = {}
    for one in shares:
        for name, share in one.items():
            best[name] = max(best.get(name, 0.0), share)
    ranked = sorted(best, key=lambda name: -best[name])
    return ranked if len(ranked) <= _SERIES else ranked[: _SERIES - 1]


def _bar(name: str, shares: Sequence[float], index: int) -> Figure:
    return {
        "type": "bar", "orientation": "h", "name": _label(name), "x": list(shares), "y": list(range(len(shares))),
        "marker": {"color": f"var(--series-{index + 1})", "line": {"color": "var(--paper)", "width": 1}},
        "hoverinfo": "text", "hovertext": [_label(f"{name}: {share:.1f} %") for share in shares],
    }  # fmt: skip


def _layout(height: int, x: Figure, y: Figure, **more: Any) -> Figure:
    lines = {"gridcolor": "var(--line)", "linecolor": "var(--line)"}
    quiet = {"fixedrange": True, "zeroline": False, **lines, "automargin": True}
    below = {"x": 0, "y": 0, "yref": "container", "yanchor": "bottom"}
    return {
        "height": height,
        "margin": {"l": 8, "r": 12, "t": 8, "b": 8},
        "font": {"family": "var(--sans)", "size": 13, "color": "var(--ink)"},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "hoverlabel": {"bgcolor": "var(--paper)", "font": {"color": "var(--ink)"}, "bordercolor": "var(--line)"},
        "legend": {"orientation": "h", "traceorder": "normal", **below},
        "dragmode": False,
        "showlegend": False,
        "xaxis": {**quiet, **x},
        "yaxis": {**quiet, "showgrid": False, "ticks": "", **y},
        **more,
    }


def _rows(names: Iterable[str]) -> Figure:
    """An axis of names, the first at the top."""
    labels = [_label(name) for name in names]
    return {"tickvals": list(range(len(labels))), "ticktext": labels, "range": [len(labels) - 0.5, -0.5]}


def _titled(text: str, **more: Any) -> Figure:
    return {"title": {"text": _label(text), "font": {"size": 13}}, **more}


def _label(text: str, most: int = 32) -> str:
    """Plotly reads some HTML in its labels: escape it, and keep a long name from filling the plot."""
    return html.escape(text if len(text) <= most else text[: most - 1] + "…")


def claims_figure(drawn: dict[str, Any]) -> Figure:
    """A figure of a paper, drawn again: our lines, the paper's points."""
    traces = [
        {
            "type": "scatter", "mode": "lines+markers", "name": _label(one["name"]), "x": one["x"], "y": one["y"],
            "line": {"color": f"var(--series-{1 + index % _SERIES})"},
        }
        for index, one in enumerate(drawn.get("series", []))
    ]  # fmt: skip
    points = drawn.get("published", [])
    if points:
        names = [_label(f"published: {one['name']}, {number(one['y'])}") for one in points]
        marker = {"color": "var(--ink)", "symbol": "x-thin-open", "size": 9, "line": {"width": 2}}
        places = {"x": [one["x"] for one in points], "y": [one["y"] for one in points]}
        named = {"name": "published", "text": names, "hoverinfo": "text"}
        traces.append({"type": "scatter", "mode": "markers", **named, **places, "marker": marker})
    x = _titled(drawn.get("x", ""), type=_scale(drawn), showgrid=False)
    y = _titled(drawn.get("y", ""), showgrid=True, rangemode="tozero")
    return {"data": traces, "layout": _layout(330 + 13 * len(traces), x, y, showlegend=True, hovermode="closest")}


def _scale(drawn: dict[str, Any]) -> str:
    values = [x for one in drawn.get("series", []) for x in one["x"]]
    if not values or any(isinstance(x, str) for x in values):
        return "category" if values else "linear"
    return "log" if min(values) > 0 and max(values) / min(values) > 20 else "linear"


def sensitivity_figure(rows: Sequence[dict[str, Any]], what: str) -> Figure | None:
    """A heat map of layers: one row for each kind, one column for each block; None where names have no block.

    Args:
        rows: with a `group`, the name of a layer, and a number `what`. The first number in a name is its block.
    """
    placed: dict[tuple[str, int], float] = {}
    for row in rows:
        found = re.search(r"(?<![^.])\d+(?![^.])", row["group"])
        if found:
            placed[row["group"].replace(found[0], "N", 1), int(found[0])] = row[what]
    kinds, blocks = list(dict.fromkeys(kind for kind, _ in sorted(placed))), sorted({block for _, block in placed})
    if len(blocks) < 2:
        return None
    most = max(map(abs, placed.values())) or 1.0
    cells = [[placed.get((kind, block)) for block in blocks] for kind in kinds]
    names = [[kind.replace("N", str(block), 1) for block in blocks] for kind in kinds]
    heat: Figure = {
        "type": "heatmap", "z": cells, "x": list(map(str, blocks)), "y": list(map(_label, kinds)), "zmin": -most,
        "zmax": most, "colorscale": [[0, "var(--series-1)"], [0.5, "var(--paper)"], [1, "var(--series-2)"]],
        "xgap": 2, "ygap": 2, "texttemplate": "%{z:.3g}", "customdata": names, "showscale": False,
        "hovertemplate": f"%{{customdata}}<br>{what} %{{z:.4g}}<extra></extra>",
    }  # fmt: skip
    x = _titled("block", type="category", showgrid=False)
    y = {"type": "category", "autorange": "reversed", "automargin": True}
    return {"data": [heat], "layout": _layout(110 + 34 * len(kinds), x, y)}


def placement_figure(report: dict[str, Any]) -> Figure | None:
    """Where a model sits: a column for each unit below the chip; None where nothing is stored in arrays."""
    placed = report.get("placement") or {}
    segments: Sequence[Sequence[Any]] = placed.get("segments", [])
    if not segments:
        return None
    per_chip, size, level = placed["levels_per_chip"], placed["arrays_per_level"], placed["level"]
    blocks = {name: index for index, name in enumerate(dict.fromkeys(segment[2] for segment in segments))}
    bars = {
        "type": "bar",
        "x": [chip * per_chip + number for chip, number, *_ in segments],
        "y": [100 * arrays / size for *_, arrays in segments],
        "base": [100 * start / size for *_, start, _ in segments],
        "marker": {"color": [f"var(--series-{1 + blocks[name] % _SERIES})" for _, _, name, *_ in segments]},
        "hoverinfo": "text",
        "hovertext": [_told(segment, level, size) for segment in segments],
    }
    columns, name = placed["chips"] * per_chip, f"{level} ({placed['chips']} x {per_chip})"
    if placed.get("segments_left_out"):
        columns, whole = 1 + max(bars["x"]), columns
        name = f"{level}: first {columns:,} of {whole:,}"
    x = _titled(name, range=[-0.6, columns - 0.4])
    y = _titled("arrays taken, %", range=[0, 100], showgrid=True)
    return {"data": [bars], "layout": _layout(260, x, y, barmode="overlay", bargap=0.15)}


def _told(segment: Sequence[Any], level: str, size: int) -> str:
    chip, number, name, _, arrays = segment
    return html.escape(f"chip {chip + 1}, {level} {number + 1}: {name}, {arrays:,} of {size:,} arrays")
