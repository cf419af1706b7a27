"""Tables and the figure of docs/kernels.md from the records of read_speed.py, model_speed.py and peers_speed.py.

    python benchmarks/kernel_page.py

Replaces what stands between `<!-- NAME -->` and `<!-- end -->`, for every NAME below.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from roofline import draw

PAGE, RESULTS = Path("docs/kernels.md"), Path("benchmarks/results")
Row = dict[str, Any]
SHAPES = [(768, 768), (768, 3072), (3072, 768), (4096, 4096)]


def record(name: str) -> dict[str, Any]:
    return json.loads((RESULTS / f"{name}.json").read_text())


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def two_digits(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def cell(tokens: int, shape: tuple[int, int], case: str, block: int, ratio: Callable[[Row], str]) -> str:
    for row in record("read_speed")["rows"]:
        if (row["tokens"], row["rows"], row["columns"], row["case"], row["array_rows"]) == (
            tokens,
            *shape,
            case,
            block,
        ):
            return ratio(row)
    return ""


def cases(*, but: str) -> list[tuple[str, int]]:
    """Names and array rows in the order of the record."""
    found = [(row["case"], row["array_rows"]) for row in record("read_speed")["rows"] if row["case"] != but]
    return list(dict.fromkeys(found))


def many_tokens() -> str:
    """Ratios to F.linear of 128 and 2048 tokens."""
    columns = [(128, shape) for shape in SHAPES] + [(2048, (768, 768)), (2048, (3072, 768))]
    head = ["ratio to `F.linear`", *(f"{tokens} × {shape[0]} × {shape[1]}" for tokens, shape in columns)]
    return table(
        head,
        [
            [
                f"{case}, R = {block}",
                *(cell(*one, case, block, lambda row: two_digits(row["ratio"])) for one in columns),
            ]
            for case, block in cases(but="")
        ],
    )


def one_token() -> str:
    """Ratios to F.linear of one token, weights from memory and in cache."""

    def both(row: Row) -> str:
        return f"{two_digits(row['memory']['ratio'])} / {two_digits(row['ratio'])}"

    head = ["one token, from memory / in cache", *(f"{shape[0]} × {shape[1]}" for shape in SHAPES)]
    chosen = cases(but="read noise of every sum")
    rows = [[f"{case}, R = {block}", *(cell(1, one, case, block, both) for one in SHAPES)] for case, block in chosen]
    return table(head, rows)


def builds() -> str:
    """Instruction sets and plain torch, and two threads."""
    rows = []
    for row in record("read_speed")["rows"]:
        if "threads" not in row:
            continue
        sets = [two_digits(value) for value in row.get("instruction_sets", {}).values()] or ["", "", ""]
        torch = two_digits(row["plain_torch"]["ratio"]) if "plain_torch" in row else ""
        threads = row["threads"]
        work = threads["processor_2"] / threads["processor_1"]
        shape = f"{row['case'].removeprefix('analog, ')}, {row['tokens']} × {row['rows']} × {row['columns']}"
        rows.append([shape, *sets, torch, f"{threads['speed_up']:.2f}", f"{work:.2f}"])
    head = ["R = 64", "AVX-512", "AVX2", "x86-64", "batched torch products", "two threads, times faster", "their work"]
    return table(head, rows)


def model() -> str:
    """A whole encoder."""
    found = record("model_speed")
    rows = [["digital fp32", f"{found['exact']['digital']:.2f}", "1", ""]]
    for name in ("exact", "effective"):
        one = found[name]
        rows.append([name, f"{one['seconds']:.2f}", f"{one['ratio']:.2f}", f"{one['program_100_million']:.0f}"])
    again = found["regenerated"]
    rows.append(['exact, `memory="regenerated"`', f"{again['seconds']:.1f}", f"{again['ratio']:.0f}", ""])
    return table(["forward pass", "seconds", "ratio", "programming 100 million weights, s"], rows)


def peers() -> str:
    """Layers of other simulators."""
    found = record("peers_speed")
    rows: dict[str, list[str]] = {}
    for row in found["rows"]:
        rows.setdefault(row["layer"], [row["layer"], row["effects"]]).append(two_digits(row["ratio"]))
    return table(["768 × 768", "what it models", "1 token", "128 tokens"], [*rows.values()])


def main() -> None:
    page = PAGE.read_text()
    for name, made in {
        "many tokens": many_tokens(),
        "one token": one_token(),
        "builds": builds(),
        "model": model(),
        "peers": peers(),
    }.items():
        page, count = re.subn(
            f"(<!-- {name} -->\\n).*?(<!-- end -->)",
            lambda m, made=made: m[1] + "\n" + made + "\n\n" + m[2],
            page,
            flags=re.S,
        )
        assert count == 1, name
    PAGE.write_text(page)
    draw(record("read_speed"), PAGE.with_name("kernels_roofline.svg"))


if __name__ == "__main__":
    main()
