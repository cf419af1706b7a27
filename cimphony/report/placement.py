"""Where a model sits on its chips, drawn: one column for each unit below the chip, filled by the layers in it."""

import html
from collections.abc import Sequence
from typing import Any

Figure = dict[str, Any]
_COLOURS = 8


def placement_figure(report: dict[str, Any], layout: Any) -> Figure | None:
    """The plot of one cost report; None where nothing is stored in arrays. `layout` makes a Plotly layout."""
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
        "marker": {"color": [f"var(--series-{1 + blocks[name] % _COLOURS})" for _, _, name, *_ in segments]},
        "hoverinfo": "text",
        "hovertext": [_told(segment, level, size) for segment in segments],
    }
    columns = placed["chips"] * per_chip
    x = {"title": {"text": f"{level} (of {placed['chips']} chips of {per_chip})"}, "range": [-0.6, columns - 0.4]}
    y = {"title": {"text": "arrays taken, %"}, "range": [0, 100], "showgrid": True}
    return {"data": [bars], "layout": layout(240, x, y, barmode="overlay", bargap=0.15)}


def _told(segment: Sequence[Any], level: str, size: int) -> str:
    chip, number, name, _, arrays = segment
    return html.escape(f"chip {chip + 1}, {level} {number + 1}: {name}, {arrays:,} of {size:,} arrays")
