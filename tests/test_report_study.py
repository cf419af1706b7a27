"""Reports of studies: the page's front is the true one, its numbers are the records', and names stay text."""

import csv
import io
import json
import random
import re
import statistics
from pathlib import Path
from typing import Any

import pytest

from cimphony.errors import DataError
from cimphony.record import Record, new_record, read_records, write_record
from cimphony.report import render_report, write_report
from cimphony.report.figures import sensitivity_figure
from cimphony.report.study import axes_of, columns, measures_of, pareto_front, studies
from tests.browser import visit

NASTY = "</script><script>alert('x')</script>"


def point(at: int, word: str = "offset", study: str = "adc bits") -> Record:
    """A finished point of a made-up study; every tenth one failed."""
    drawn = random.Random(at)
    bits, rows = drawn.choice((4, 5, 6, 7)), drawn.choice((32, 64, 128))
    accuracy = 0.9 - 0.8 / bits**2 - drawn.random() * rows / 2000
    chips = [{"seed": seed, "accuracy": accuracy + drawn.gauss(0, 0.01)} for seed in range(4)]
    energy, area = 1e-6 * 2**bits * (1 + drawn.random()), 1e-6 * (300 - rows)
    results = {
        "measures": {"accuracy": accuracy, "energy": energy, "area": area},
        "spread": {"accuracy": {"sd": 0.01}}, "per_seed": chips, "digital": {"accuracy": 0.92},
        "breakdown": {"analog.adc": 2e-6, "sfu.sfu": 1e-6}, "status": "done", "message": "",
    }  # fmt: skip
    if at % 10 == 9:
        results = {"measures": {}, "status": "failed", "message": f"does not fit <b>{word}</b>"}
    axes = {"units.analog.adc.bits": bits, "units.analog.rows": rows, "encoding": word if at % 2 else "differential"}
    return new_record("point", f"{study}: {at}", settings={"study": study, "axes": axes}, chip={"name": word},
                      results=results, assumptions=["nothing leaks"], duration=0.5)  # fmt: skip


def points(count: int = 60, word: str = "offset") -> list[Record]:
    return [point(at, word) for at in range(count)]


def summary() -> Record:
    settings = {"name": "adc bits", "question": "How many bits?", "measures": {"accuracy": "max", "area": "min"}}
    return new_record("study", "adc bits", settings=settings, results={"points": [{"axes": {}}]}, complete=False)


def beats(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return all(a <= b for a, b in zip(one, other, strict=True)) and one != other


@pytest.mark.parametrize("size", [1, 2, 3])
def test_front_is_what_nothing_beats(size):
    drawn = random.Random(size)
    rows = [tuple(float(drawn.randrange(8)) for _ in range(size)) for _ in range(80)]
    signs = [(-1) ** at for at in range(size)]
    signed = [tuple(sign * value for sign, value in zip(signs, row, strict=True)) for row in rows]
    expected = {at for at, row in enumerate(signed) if not any(beats(other, row) for other in signed)}
    assert set(pareto_front([*rows, (None,) * size, (float("nan"),) * size], signs)) == expected


def test_objectives_are_the_goals_of_the_study():
    alone, told = studies(points())[0], studies([*points(), summary()])[0]
    assert alone.objectives == ["energy", "accuracy", "area"]
    assert told.objectives == ["area", "accuracy"]
    assert not told.lower("accuracy")
    assert told.lower("area")
    kept = [measures_of(told.points[at]) for at in told.front]
    finished = [measures_of(one) for one in told.points if measures_of(one)]
    assert not any(o["accuracy"] > k["accuracy"] and o["area"] <= k["area"] for k in kept for o in finished)


def test_every_number_reaches_the_page_once():
    (study,) = studies(points())
    data = columns(study)
    for at, one in enumerate(study.points):
        axes = {axis["name"]: axis["values"][axis["at"][at]] for axis in data["axes"]}
        assert axes == axes_of(one)
        found = {column["name"]: column["values"][at] for column in data["measures"]}
        assert {name: value for name, value in found.items() if value is not None} == measures_of(one)
    assert set(data["messages"]) == set(range(9, 60, 10))
    assert render_report(points()).count("study-data") == 2  # the data, and the script that reads it


def test_page_says_what_the_study_says():
    page = render_report([*points(), summary()])
    for words in ("How many bits?", "only finished points", "nothing leaks", "does not fit", "adc bits"):
        assert words in page
    assert "plotly" not in page  # a study alone is light


def test_summary_alone_has_its_points():
    rows = [{"axes": axes_of(one), **one.results} for one in points(20)]
    alone = summary().model_copy(update={"results": {"points": rows}})
    (study,) = studies([alone])
    assert [measures_of(one) for one in study.points] == [measures_of(one) for one in points(20)]
    assert "How many bits?" in render_report([alone])


def test_folder_and_lines_are_read(tmp_path):
    for at, one in enumerate(points(12)):
        write_record(one, tmp_path / "study" / "points" / f"{at:04}.json")
    write_record(summary(), tmp_path / "study" / "study.json")
    (study,) = studies(read_records(tmp_path / "study"))
    assert len(study.points) == 12
    assert study.summary is not None
    lines = tmp_path / "points.jsonl"
    lines.write_text("\n".join(one.model_dump_json() for one in points(12)) + "\n", encoding="utf-8")
    assert [one.results for one in read_records(lines)] == [one.results for one in points(12)]
    lines.write_text("{}\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"points\.jsonl:1' is not a Cimphony record"):
        read_records(lines)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no records"):
        read_records(tmp_path / "empty")


def test_csv_and_json_have_every_number(tmp_path):
    rows = list(csv.DictReader(io.StringIO(write_report(points(), tmp_path / "x.csv", form="csv").read_text())))
    same = json.loads(write_report(points(), tmp_path / "x.json", form="json").read_text())
    for row, told, one in zip(rows, same, points(), strict=True):
        for name, value in (measures_of(one) | axes_of(one)).items():
            assert row[name] == str(value)
            assert told[name] == value
        assert row["message"] == one.results["message"]


def test_markdown_is_text(tmp_path):
    told = write_report(points(word=NASTY + "|"), tmp_path / "x.md", form="md").read_text()
    assert "<script>" not in told
    assert "not beaten in energy, accuracy, area" in told.lower()
    assert "&lt;script>" in told
    with pytest.raises(DataError, match="choose one of html, md, csv, json"):
        write_report(points(), tmp_path / "x.pdf", form="pdf")


def test_layers_that_suffer_are_a_heat_map(tmp_path):
    rows = [
        {"group": f"model.h.{block}.{kind}", "harm": 10 * block + at, "relief": 0.0}
        for block in (0, 2, 10)
        for at, kind in enumerate(("attn", "mlp.0"))
    ]
    drawn = sensitivity_figure([*rows[:-1], {"group": "head", "harm": 1.0}], "harm")
    assert drawn is not None
    (heat,) = drawn["data"]
    assert (heat["x"], heat["y"]) == (["0", "2", "10"], ["model.h.N.attn", "model.h.N.mlp.0"])
    assert heat["z"] == [[0, 20, 100], [1, 21, None]]
    assert heat["customdata"][1][2] == "model.h.10.mlp.0"
    assert sensitivity_figure([{"group": "head", "harm": 1.0}], "harm") is None
    page = render_report([new_record("study", "layers", results={"metric": "loss", "rows": rows})])
    assert "What noise in one layer alone costs, in loss." in page
    assert "What one clean layer wins among noisy ones, in loss." in page


# in a browser


def shown(page: Any) -> tuple[int, int, int]:
    """Points shown, points in all, points on the front, as the page says."""
    words = page.get_by_role("status").inner_text().replace(",", "").split()
    return int(words[0]), int(words[2]), int(words[4])


def hovered(page: Any) -> str:
    """What the page says of the point under the pointer, wherever on the front's canvas there is one."""
    box = page.locator("canvas.front").bounding_box()
    for step in range(200):
        page.mouse.move(box["x"] + 80 + (step * 37) % (box["width"] - 100), box["y"] + 30 + (step * 53) % 320)
        if page.locator(".tip").is_visible():
            return page.locator(".tip").inner_text()
    raise AssertionError("nothing to hover over")


def test_front_hover_filter_and_table(browser, tmp_path):
    path = write_report(points(), tmp_path / "study.html")
    page, trouble = visit(browser, path.as_uri(), 1280)
    (study,) = studies(points())
    assert shown(page) == (60, 60, len(study.front))
    told = hovered(page)
    assert "units.analog.adc.bits" in told
    assert "accuracy" in told
    page.get_by_label("Filter").fill("adc.bits>=6 differential")
    wanted = [
        one for one in points() if axes_of(one)["units.analog.adc.bits"] >= 6 and axes_of(one)["encoding"] != "offset"
    ]
    assert shown(page)[0] == len(wanted)
    page.get_by_role("button", name="accuracy").click()
    first = float(page.locator("table.points tbody td:nth-child(4)").first.inner_text())
    assert first == pytest.approx(min(measures_of(one).get("accuracy", 9) for one in wanted), abs=1e-4)
    page.locator("table.points tbody tr").first.click()
    assert "analog.adc" in page.locator(".chosen").inner_text()  # its breakdown
    page.get_by_label("Filter").fill("failed")
    assert shown(page)[0] == 6
    assert "does not fit <b>offset</b>" in page.locator("table.points tbody").inner_text()
    page.get_by_role("button", name="Show all").click()
    page.get_by_label("Colour").select_option("")
    two = pareto_front([[measures_of(one).get(name) for name in ("energy", "accuracy")] for one in points()], [1, -1])
    assert shown(page) == (60, 60, len(two))
    assert trouble == []
    page.context.close()


def test_front_by_keyboard_and_brush(browser, tmp_path):
    page, trouble = visit(browser, write_report(points(), tmp_path / "study.html").as_uri(), 1280)
    page.locator("canvas.front").focus()
    page.keyboard.press("ArrowRight")
    (study,) = studies(points())
    best = measures_of(study.points[study.front[0]])
    assert f"{best['accuracy']:.4g}" in page.locator(".chosen").inner_text()
    axis = page.locator("canvas.parallel")
    axis.scroll_into_view_if_needed()
    box = axis.bounding_box()
    page.mouse.move(box["x"] + 56, box["y"] + 40)  # the upper half of the first axis, the converter's bits
    page.mouse.down()
    page.mouse.move(box["x"] + 56, box["y"] + 180, steps=4)
    page.mouse.up()
    assert shown(page)[0] == sum(axes_of(one)["units.analog.adc.bits"] >= 6 for one in points())
    page.mouse.click(box["x"] + 56, box["y"] + 100)
    assert shown(page)[0] == 60
    assert trouble == []
    page.context.close()


def test_yield_is_that_of_the_chips(browser, tmp_path):
    page, trouble = visit(browser, write_report(points(), tmp_path / "study.html").as_uri(), 1280)
    words = page.locator("figcaption", has_text="Points on the front; the chosen one is thick.")
    assert "Of its" not in words.inner_text()
    page.locator("table.points tbody tr").nth(3).click()
    chips, digital = points()[3].results["per_seed"], points()[3].results["digital"]["accuracy"]
    losses = [100 * (1 - chip["accuracy"] / digital) for chip in chips]
    told = re.search(r"Of its 4 chips half lose at most (\S+) % of accuracy, the worst (\S+) %", words.inner_text())
    assert told is not None
    assert float(told[1]) == pytest.approx(statistics.median(losses), rel=1e-2)
    assert float(told[2]) == pytest.approx(max(losses), rel=1e-2)
    page.get_by_role("button", name="Show all").click()
    assert "Of its" not in words.inner_text()
    assert trouble == []
    page.context.close()


def test_download_is_the_table(browser, tmp_path):
    path = write_report(points(word='a "quoted", word'), tmp_path / "study.html")
    page, _ = visit(browser, path.as_uri(), 1280)
    page.get_by_label("Filter").fill("rows=64")
    with page.expect_download() as got:
        page.get_by_role("button", name="Download CSV").click()
    assert got.value.suggested_filename == "adc-bits.csv"
    rows = list(csv.DictReader(io.StringIO(Path(got.value.path()).read_text(encoding="utf-8"))))
    wanted = [one for one in points(word='a "quoted", word') if axes_of(one)["units.analog.rows"] == 64]
    assert len(rows) == len(wanted)
    for row, one in zip(rows, wanted, strict=True):
        assert row["encoding"] == axes_of(one)["encoding"]
        assert {name: float(row[name]) for name in measures_of(one)} == measures_of(one)
    page.context.close()


def test_names_are_text_and_fit_a_phone(browser, tmp_path):
    path = write_report(points(word=NASTY), tmp_path / "study.html")
    for width, scheme in ((1280, "light"), (390, "dark")):
        page, trouble = visit(browser, path.as_uri(), width, scheme)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        hovered(page)
        assert NASTY in page.locator("table.points tbody").inner_text()
        assert trouble == []  # no alert, nothing loaded
        for canvas in page.locator("canvas").all():
            assert canvas.get_attribute("aria-label")
        page.context.close()
