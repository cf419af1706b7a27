"""HTML from Python calls. Text is escaped unless this module made it."""

import base64
import html
import struct
import zlib
from collections.abc import Iterable
from typing import Any

from cimphony.report.tables import Table

_MANY = 8  # columns that a page has room for


class Html(str):
    """Text that already is HTML; anything else is escaped when it becomes a child of an element."""


def escape(value: Any) -> Html:
    """The value as HTML text; HTML stays as it is, a sequence of children is joined."""
    if isinstance(value, Html):
        return value
    if isinstance(value, (list, tuple)):
        return Html("".join(escape(one) for one in value))
    return Html(html.escape(str(value), quote=True))


def element(name: str, /, *children: Any, **attributes: Any) -> Html:
    """`element("p", "a < b", class_="note")`. An attribute of None is left out; `_` in its name becomes `-`."""
    text = "".join(
        f' {key.strip("_").replace("_", "-")}="{escape(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in ("meta", "br", "img"):
        return Html(f"<{name}{text}>")
    return Html(f"<{name}{text}>{escape(children)}</{name}>")


def grey_image(rows: list[list[int]], label: str) -> Html:
    """A picture of grey values 0 to 255 inside the page itself, as PNG."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", len(rows[0]), len(rows), 8, 0, 0, 0, 0)
    lines = zlib.compress(b"".join(b"\0" + bytes(row) for row in rows), 9)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", lines) + chunk(b"IEND", b"")
    return element("img", src=f"data:image/png;base64,{base64.b64encode(png).decode()}", alt=label)


def bullets(items: Iterable[Any]) -> Html:
    """An unordered list."""
    return element("ul", [element("li", item) for item in items])


def pairs(items: Iterable[tuple[Any, Any]]) -> Html:
    """Names and their values."""
    return element("dl", [element("div", element("dt", name), element("dd", value)) for name, value in items])


def fold(summary: Any, *children: Any) -> Html:
    """Content that opens on a click."""
    return element("details", element("summary", summary), *children)


def table(content: Table) -> Html:
    """A table with its caption; a wide one scrolls inside its own frame, also by keyboard."""
    kinds = ["number" if column in content.numeric else None for column in range(len(content.columns))]
    heads = [element("th", name, scope="col", class_=kind) for name, kind in zip(content.columns, kinds, strict=True)]
    body = element(
        "table",
        element("caption", content.caption),
        element("thead", element("tr", heads)),
        element("tbody", [_row(row, kinds) for row in content.rows]),
        class_="wide" if len(content.columns) > _MANY else None,
    )
    note = element("p", content.note, class_="quiet small") if content.note else Html("")
    return Html(element("div", body, class_="frame", role="region", aria_label=content.caption, tabindex="0") + note)


def _row(row: tuple[str, ...], kinds: list[str | None]) -> Html:
    first = element("th", row[0], scope="row", class_=kinds[0])
    return element(
        "tr", first, [element("td", cell, class_=kind) for cell, kind in zip(row[1:], kinds[1:], strict=True)]
    )
