"""Reports: one self-contained page that says what the records say, and nothing a record smuggles in."""

import base64
import io
import re

import pytest
from PIL import Image

from cimphony.chip import load_chip
from cimphony.cost import estimate
from cimphony.errors import DataError
from cimphony.record import Record, new_record, read_record, write_record
from cimphony.report import accuracy_table, claims_table, cost_table, render_report, write_report
from cimphony.report.figures import accuracy_figure, placement_figure
from cimphony.report.html import grey_image
from cimphony.report.layers import layers_table
from cimphony.report.words import MISSING, against, age_words, factor, quantity, spread
from cimphony.workload import Operation, Workload
from tests.browser import visit

NASTY = "<script>alert('x')</script>"
VALUES = {
    (0.0, "exact"): (5.70, 5.74, 5.66),
    (0.0, "effective"): (5.62, 5.61, 5.66),
    (86_400.0, "exact"): (5.9, 6.1, 5.8),
}


def evaluation(name: str = "hyflexpim", metric: str = "perplexity per byte") -> Record:
    chip = load_chip("hyflexpim").replace({"name": name})
    groups = [
        {"age": age, "fidelity": fidelity, "chips": 3, "mean": sum(v) / 3, "sd": 0.04, "min": min(v), "max": max(v)}
        for (age, fidelity), v in VALUES.items()
    ]
    points = [
        {"seed": seed, "age": age, "fidelity": fidelity, "value": value}
        for (age, fidelity), values in VALUES.items()
        for seed, value in enumerate(values)
    ]
    part = {"columns": 128, "mode": "slc", "slices": [1, 2], "device": {"kind": "pcm"}, "kernel": "tables"}
    applied = {"layer": "first", "runs_on": "analog", "rows": 64, "columns": 128, "input": {"bits": None}}
    layers = [
        {"layer": "head", "runs_on": "digital", "why": "excluded"},
        applied | {"fidelity": "effective", "parts": [part | {"adc_bits": None, "kernel": "product"}]},
        applied
        | {"fidelity": "exact", "parts": [part | {"adc_bits": 6, "adc_codes": [0, 63], "adc_step_levels": 1.0}]},
    ]
    return new_record(
        "evaluation", f"{metric} on {name}", settings={"name": "demo", "data": "demo"}, layers=layers,
        chip=chip.model_dump(mode="json"),
        results={"metric": metric, "digital": 5.6, "points": points, "groups": groups},
    )  # fmt: skip


def costs(name: str = "hyflexpim") -> Record:
    work = Workload(model="small", operations=[Operation(layer="w", kind="static_matmul", m=4, k=256, n=128)])
    chips = [load_chip("hyflexpim").replace({"name": name}), load_chip("gpu-h100")]
    reports = [estimate(work, chip).to_dict() for chip in chips]
    dumped = [chip.model_dump(mode="json") for chip in chips]
    return new_record("cost", "Cost of small", results={"model": "small", "reports": reports, "chips": dumped})


def claims() -> Record:
    row = {
        "id": "a", "where": "Table 2", "statement": "takes 3 mW", "unit": "mW", "paper": 3.0, "ours": 3.1,
        "ratio": 1.03, "verdict": "reproduced", "status": "derived", "note": "", "relation": "equal",
    }  # fmt: skip
    drawn = {
        "figure": "14", "title": "Gain", "x": "tokens", "y": "times", "published": [{"name": "best", "x": 128, "y": 2}],
        "series": [{"name": "ours", "x": [128, 4096], "y": [1.9, 1.4]}],
    }  # fmt: skip
    return new_record("claims", "A paper", results={"claims": [row], "counts": {"reproduced": 1}, "figures": [drawn]})


def all_kinds(name: str = "hyflexpim") -> list[Record]:
    study = new_record("study", "A study", results={"best": 1.5, "rows": [{"rate": 0.1, "loss": 2.0}]})
    return [evaluation(name), costs(name), claims(), study]


def test_says_what_the_records_say():
    page = render_report(all_kinds())
    for words in ("5.700 ± 0.040", "1 day", "gpu-h100", "takes 3 mW", "slc_rate: 0.05", "excluded", "A study"):
        assert words in page
    for assumption in costs().results["reports"][0]["assumptions"]:
        assert assumption.split("'")[0][:30] in page


def test_page_is_self_contained():
    page = render_report(all_kinds())
    own = re.sub(r"<script>/\*.*?</script>", "", page, flags=re.S)  # Plotly itself
    assert len(own) < len(page) / 4
    assert not re.search(r"""(src|href)=["']|@import|url\(|https?://""", own)


def test_names_are_text_everywhere():
    page = render_report(all_kinds(NASTY), title=NASTY)
    assert NASTY not in page
    assert "&lt;script&gt;alert(&#x27;x&#x27;)" in page
    assert page.count("</script>") == 2 + page.count('class="plot"')  # each with its data; Plotly, what draws


def test_pictures_are_inside_the_page():
    found = re.search(
        r'<img src="data:image/png;base64,([^"]+)" alt="a &lt; b">', grey_image([[0, 128], [255, 7]], "a < b")
    )
    assert found
    image = Image.open(io.BytesIO(base64.b64decode(found[1])))
    assert (image.mode, list(image.tobytes())) == ("L", [0, 128, 255, 7])


def test_written_atomically_and_again(tmp_path):
    target = tmp_path / "new" / "report.html"
    kept = write_record(evaluation(), tmp_path / "record.json")
    first = write_report([read_record(kept)], target).read_text(encoding="utf-8")
    assert write_report([read_record(kept)], target).read_text(encoding="utf-8") == first
    assert [path.name for path in target.parent.iterdir()] == ["report.html"]


def test_bad_input(tmp_path):
    with pytest.raises(DataError, match="at least one record"):
        render_report([])
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        write_report([evaluation()], tmp_path / "file" / "report.html")


def test_layers_that_differ_in_fidelity_share_a_row():
    head, first = layers_table("layers", evaluation().layers).rows
    assert head[2] == "digital: excluded"
    size, cells, converter, reads, kernel = (first[column] for column in (1, 3, 5, 7, 8))
    assert (size.split(), cells) == (["64", "×", "128"], "128 columns, slc, 2 slices")
    assert (converter, reads, kernel) == ("6 bits, step 1, codes 0 to 63", "effective; exact", "product; tables")


def test_interrupted_is_said():
    half = evaluation().model_copy(update={"complete": False})
    assert "only finished points" in render_report([half])
    assert "only finished points" not in render_report([evaluation()])


def test_record_without_points_or_digital():
    empty = evaluation().model_copy(
        update={"results": {"metric": "accuracy", "digital": None, "points": [], "groups": []}}
    )
    assert "Accuracy, higher is better" in render_report([empty])


def test_accuracy_table():
    table = accuracy_table([evaluation()])
    assert table.rows[0][3] == "5.6"
    assert table.rows[1] == ("hyflexpim", "fresh", "exact", "5.700 ± 0.040", "+1.8\N{NO-BREAK SPACE}%", "3")
    assert len(table.rows) == 1 + len(VALUES)
    assert accuracy_table([evaluation(metric="accuracy")]).rows[1][4] == "+0.100"


def test_layers_that_nobody_left_out_are_named():
    record = evaluation()
    assert accuracy_table([record]).note == ""
    row = {"layer": "experts", "runs_on": "digital", "why": "Experts: only linear layers and Conv2d go on a crossbar"}
    digital = record.model_copy(update={"layers": [*record.layers, row]})
    assert accuracy_table([digital]).note.startswith("not on the chip: experts (")


def test_notes_of_a_chip_are_assumptions_of_its_runs():
    assert evaluation().chip["notes"][0] in render_report([evaluation()]).replace("&#x27;", "'").replace("&#39;", "'")


def test_verdicts_come_before_what_explains_them():
    """On a phone the last columns are out of sight."""
    told = claims_table(claims().results)
    assert told.columns[:5] == ("Claim", "Paper", "Ours", "Ratio", "Verdict")
    for row, said in zip(claims().results["claims"], told.rows, strict=True):
        assert all(one.endswith(row["unit"]) for one in said[1:3] if one != MISSING)


def test_whiskers_fit_into_the_plot():
    low, high = accuracy_figure([evaluation()])["layout"]["xaxis"]["range"]
    assert low < 5.6
    assert high > sum(VALUES[86_400.0, "exact"]) / 3 + 0.04
    wide = evaluation()
    wide.results["groups"][-1]["sd"] = 3.0
    assert accuracy_figure([wide])["layout"]["xaxis"]["range"][1] > 8.9


def test_a_placement_too_large_to_draw_says_what_it_shows():
    placed = {"level": "tile", "chips": 9, "levels_per_chip": 100, "arrays_per_level": 8}
    placed |= {"segments": [[0, 0, "a", 0, 8], [0, 1, "a", 0, 8]], "segments_left_out": 898}
    figure = placement_figure({"placement": placed})
    assert figure["layout"]["xaxis"]["title"]["text"] == "tile: first 2 of 900"


def test_chips_that_leave_work_out_are_marked():
    attention = Operation(layer="a", kind="dynamic_matmul", m=4, k=64, n=4)
    linear = Operation(layer="w", kind="static_matmul", m=4, k=256, n=128)
    work = Workload(model="small", operations=[linear, attention])
    results = {"reports": [estimate(work, load_chip(name)).to_dict() for name in ("pcm-256", "gpu-h100")]}
    table = cost_table(results)
    assert [row[0] for row in table.rows] == ["pcm-256 *", "gpu-h100"]
    assert table.note.startswith("* has no unit for some matrix products")
    page = render_report([new_record("cost", "Cost", results={"model": "small", **results})])
    assert table.note in page
    assert "the least energy" in page  # the unmarked one; a marked chip never leads
    assert cost_table(costs().results).note == ""


def test_cost_table_compares_with_the_last_chip():
    rows = cost_table(costs().results).rows
    assert [row[0] for row in rows] == ["hyflexpim", "gpu-h100"]
    assert rows[1][-2:] == ("1×", "1×")
    assert rows[0][-2].startswith("1/")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (age_words(0), "fresh"),
        (age_words(86_400), "1 day"),
        (age_words(7200), "2 hours"),
        (age_words(2.5), "2.5 s"),
        (spread(5.70123, 0.0123), "5.701 ± 0.012"),
        (spread(123.4, 12.0), "123 ± 12"),
        (spread(5.7, None), "5.7"),
        (spread(None, None), "–"),
        (factor(20, 10), "2×"),
        (factor(1, 40), "1/40"),
        (factor(1, 0), "–"),
        (quantity(0.266, "/s"), "0.266 /s"),
        (quantity(2e-3, "m2"), "2,000 mm²"),
        (quantity(None, "J"), "–"),
        (against(0.9, 0.95, True), "−0.050"),
    ],
)
def test_words(words, expected):
    assert words == expected


# in a browser


def test_page_in_a_browser(browser, tmp_path):
    path = write_report(all_kinds(f"<b>{NASTY}"), tmp_path / "report.html")
    for width in (1280, 390):
        page, trouble = visit(browser, path.as_uri(), width)
        assert trouble == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.locator(".plot:has(.main-svg)").count() >= 7  # the wait above: every plot is drawn
        assert "<script>" in page.locator("tbody th").nth(1).inner_text()
        assert page.locator(".plot").evaluate_all("all => Math.max(...all.map(one => one.scrollWidth))") <= width
        page.context.close()


def test_colours_follow_the_reader(browser, tmp_path):
    path = write_report([evaluation()], tmp_path / "report.html")
    paper = {}
    for scheme in ("light", "dark"):
        page, _ = visit(browser, path.as_uri(), 800, scheme)
        paper[scheme] = page.evaluate("getComputedStyle(document.body).backgroundColor")
        page.context.close()
    assert paper == {"light": "rgb(253, 252, 249)", "dark": "rgb(20, 23, 27)"}
