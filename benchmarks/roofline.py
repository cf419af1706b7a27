"""The figure of docs/kernels.md: bit-level multiply-adds a second of the reads against what the core can do.

Drawn by `kernel_page.py`. Intensity counts the bytes of cells that a read streams once. Roofs are the memory's
measured speed and the speed of large products of floats and of bytes. A read by tables may pass them: a look-up
stands for six multiply-adds.
"""

import math
from pathlib import Path
from typing import Any

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 720, 440, 70, 180, 20, 50
X, Y = (1.0, 1e6), (1e9, 2e12)
COLOURS = {
    "analog, 8 slices of 1 bit": "#1f77b4",
    "analog, 4 slices of 2 bits": "#d62728",
    "noise-free, lossy converter": "#2ca02c",
}


def x_of(intensity: float) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * math.log(intensity / X[0]) / math.log(X[1] / X[0])


def y_of(speed: float) -> float:
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * math.log(speed / Y[0]) / math.log(Y[1] / Y[0])


def text(x: float, y: float, words: str, **style: Any) -> str:
    given = " ".join(f'{name.replace("_", "-")}="{value}"' for name, value in style.items())
    return f'<text x="{x:.1f}" y="{y:.1f}" {given}>{words}</text>'


def line(points: list[tuple[float, float]], **style: Any) -> str:
    given = " ".join(f'{name.replace("_", "-")}="{value}"' for name, value in style.items())
    where = " ".join(f"{x_of(x):.1f},{y_of(y):.1f}" for x, y in points)
    return f'<polyline points="{where}" fill="none" {given}/>'


def axes() -> list[str]:
    parts = [f'<rect x="{LEFT}" y="{TOP}" width="{WIDTH - LEFT - RIGHT}" height="{HEIGHT - TOP - BOTTOM}" ']
    parts[0] += 'fill="none" stroke="#888"/>'
    for power in range(7):
        parts.append(text(x_of(10.0**power), HEIGHT - BOTTOM + 16, f"{10**power:,}", text_anchor="middle"))
    for power in range(9, 13):
        parts.append(text(LEFT - 6, y_of(10.0**power) + 4, f"{10 ** (power - 9):,}", text_anchor="end"))
        parts.append(line([(X[0], 10.0**power), (X[1], 10.0**power)], stroke="#ddd"))
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(text(middle, HEIGHT - 12, "bit-level multiply-adds for a byte of cells", text_anchor="middle"))
    turned = f"rotate(-90 16 {HEIGHT / 2})"
    parts.append(text(16, HEIGHT / 2, "10⁹ multiply-adds a second", text_anchor="middle", transform=turned))
    return parts


def roofs(machine: dict[str, float]) -> list[str]:
    parts = []
    for name, words in (("float_multiply_adds", "fp32 product"), ("byte_multiply_adds", "int8 product")):
        peak, bend = machine[name], machine[name] / machine["memory_bytes"]
        points = [(X[0], X[0] * machine["memory_bytes"]), (bend, peak), (X[1], peak)]
        parts.append(line(points, stroke="#444", stroke_width=1.5))
        parts.append(text(WIDTH - RIGHT + 6, y_of(peak) + 4, f"{words}, {peak / 1e9:.0f}"))
    at = 1.5
    words = f"memory, {machine['memory_bytes'] / 1e9:.0f} GB/s"
    return [*parts, text(x_of(at), y_of(at * machine["memory_bytes"]) + 30, words)]


def points(rows: list[dict[str, Any]]) -> list[str]:
    parts = []
    for row in rows:
        if row["case"] not in COLOURS or row["kernel"] != "tables":
            continue
        held = next(one["memory"]["bytes"] for one in rows if one["tokens"] == 1 and same(one, row))
        seconds = row["memory"]["seconds"] if row["tokens"] == 1 else row["seconds"]
        x, y = x_of(row["multiply_adds"] / held), y_of(row["multiply_adds"] / seconds)
        shape = f"{row['tokens']} x {row['rows']} x {row['columns']}, R {row['array_rows']}"
        style = f'fill="{COLOURS[row["case"]]}" fill-opacity="0.6"'
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" {style}><title>{row["case"]}, {shape}</title></circle>')
    for index, (name, colour) in enumerate(COLOURS.items()):
        y = HEIGHT - BOTTOM - 60 + 18 * index
        parts.append(f'<circle cx="{WIDTH - RIGHT - 190}" cy="{y - 4}" r="4" fill="{colour}"/>')
        parts.append(text(WIDTH - RIGHT - 180, y, name))
    return parts


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(one[name] == other[name] for name in ("case", "rows", "columns", "array_rows"))


def draw(record: dict[str, Any], output: Path) -> None:
    """Write the figure of a record."""
    parts = [*axes(), *roofs(record["machine"]), *points(record["rows"])]
    style = 'font-family="sans-serif" font-size="12"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" {style}>'
    ground = f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>'
    output.write_text("\n".join([head, ground, *parts, "</svg>"]) + "\n")
