"""Explore: the page's numbers are those of `cimphony cost`, it saves where it may, and answers nobody else."""

import http.client
import json
import threading
from collections.abc import Iterator
from functools import reduce
from typing import Any

import pytest
from typer.testing import CliRunner

from cimphony.chip import chip_names, load_chip
from cimphony.cli import app
from cimphony.cost import estimate
from cimphony.errors import ChipError, DataError
from cimphony.explore import ExploreServer, Workbench, knobs
from cimphony.workload import Operation, Workload
from tests.browser import visit

SIZES = {"prompt": 16, "new_tokens": 4, "batch": 1}
WORK = Workload(model="small", operations=[Operation(layer="w", kind="static_matmul", m=4, k=256, n=128)])


def costed(*arguments: str, prompt: int = 16) -> dict[str, Any]:
    """Totals that `cimphony cost` prints."""
    sizes = ("--prompt", str(prompt), "--new-tokens", "4", "--json")
    result = CliRunner().invoke(app, ["cost", "demo", *arguments, *sizes])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)["reports"][0]["totals"]


# labels of knobs: the key that turns one, the field it writes, and the value it then has
KNOBS = {
    "Rows of an array": ("ArrowRight", "units.analog.rows", 128),
    "Columns of an array": ("ArrowRight", "units.analog.columns", 256),
    "Converter bits (SLC)": ("ArrowRight", "units.analog.adc.bits.slc", 7),
    "Converter bits (MLC)": ("ArrowLeft", "units.analog.adc.bits.mlc", 6),
    "Cell bits (MLC)": ("ArrowRight", "units.analog.cell.bits.mlc", 3),
    "Share of columns in SLC": ("ArrowRight", "units.analog.cell.slc_rate", 0.1),
    "Technology node": ("ArrowLeft", "node", 45e-9),
}


@pytest.fixture
def bench(tmp_path) -> Workbench:
    return Workbench("demo", {name: load_chip(name) for name in ("hyflexpim", "pcm-256", "gpu-h100")}, tmp_path / "new")


@pytest.fixture
def server(bench) -> Iterator[ExploreServer]:
    with ExploreServer(bench, {"chip": "hyflexpim", **SIZES}) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


@pytest.mark.parametrize("name", chip_names())
def test_knobs_are_fields_of_the_chip(name):
    chip = load_chip(name)
    found = knobs(chip)
    for knob in found:
        assert knob.value in knob.values
        if knob.path != "node":
            assert chip.replace({knob.path: knob.value}) == chip
    assert len({knob.path for knob in found}) == len(found)


def test_another_node_scales_prices_and_says_so():
    chip = load_chip("hyflexpim")
    before, after = estimate(WORK, chip), estimate(WORK, chip.replace({"node": 32e-9}))
    assert after.energy < before.energy
    assert after.area < before.area
    assert after.latency == before.latency
    assert any("scaled from 65 to 32 nm" in one for one in after.assumptions)
    same = estimate(WORK, chip.replace({"node": 32e-9}).replace({"node": chip.node}))
    assert (same.energy, same.area) == (before.energy, before.area)
    with pytest.raises(ChipError, match="cannot be scaled"):
        estimate(WORK, chip.replace({"node": 1e-9}))


def test_saved_chip_costs_the_same(bench, tmp_path):
    changes = {"units.analog.rows": 128, "units.analog.adc.bits.slc": 7, "node": 45e-9}
    asked = {"chip": "hyflexpim", "changes": changes, "more": "units.analog.cycle: 50.0e-9", **SIZES}
    totals = bench.cost(asked)["report"]["totals"]
    saved = bench.save({**asked, "name": "mine"})
    path = tmp_path / "new" / "mine.yaml"
    assert saved["saved"] == str(path)
    assert costed("--chip", str(path)) == totals
    assert "--prompt 16 --new-tokens 4" in saved["command"]
    assert bench.cost({"chip": "hyflexpim", **SIZES})["report"]["totals"] == costed("--chip", "hyflexpim")


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"chip": "/etc/passwd"}, "is not here; choose one of hyflexpim"),
        ({"changes": {"units.analog.rows": 0}}, "units.analog.rows = 0 is not allowed"),
        ({"changes": {"units.analog.nothing": 1}}, "nothing is not a field"),
        ({"changes": [1]}, "changes is a mapping"),
        ({"more": "a: [b"}, "not YAML"),
        ({"more": "just words"}, "one a line"),
        ({"prompt": 0}, "prompt = 0 is not possible"),
        ({"prompt": "many"}, "prompt = 'many' is not possible"),
        (
            {"changes": {"units.analog.cell.bits.slc": 4, "units.analog.encoding.bits": 3}},
            "must be below encoding.bits",
        ),
    ],
)
def test_what_cannot_be_is_one_clear_error(bench, asked, words):
    with pytest.raises((ChipError, DataError)) as caught:
        bench.cost({"chip": "hyflexpim", **SIZES, **asked})
    assert words in str(caught.value)


@pytest.mark.parametrize("name", ["", "../mine", "a/b", ".hidden", "x" * 61, "nul\0"])
def test_saves_into_its_folder_only(bench, tmp_path, name):
    with pytest.raises(DataError, match="is not possible; use letters"):
        bench.save({"chip": "hyflexpim", "name": name})
    assert not list(tmp_path.rglob("*.yaml"))


def test_never_writes_over_a_file_or_through_a_link(bench, tmp_path):
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "link.yaml").symlink_to(tmp_path / "outside.yaml")
    bench.save({"chip": "hyflexpim", "name": "mine"})
    for name in ("mine", "link"):
        with pytest.raises(DataError, match="is there already"):
            bench.save({"chip": "pcm-256", "name": name})
    assert not (tmp_path / "outside.yaml").exists()


def send(server: ExploreServer, method: str, path: str, body: str = "", **headers: str) -> tuple[int, str, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, body, given)
    response = connection.getresponse()
    return response.status, response.read().decode(), response.headers


def test_answers_its_own_page_only(server):
    page, token, question = f"/?token={server.token}", server.token, json.dumps({"chip": "pcm-256"})
    assert server.server_address[0] == "127.0.0.1"
    status, _, headers = send(server, "GET", page)
    assert status == 200
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert send(server, "POST", "/knobs", question, X_Token=token)[0] == 200
    assert send(server, "GET", "/")[0] == 404
    assert send(server, "GET", "/?token=guess")[0] == 404
    assert send(server, "GET", f"/../../etc/passwd?token={token}")[0] == 404
    assert send(server, "GET", page, Host="evil.example")[0] == 403  # DNS rebinding
    assert send(server, "POST", "/knobs", question)[0] == 403
    assert send(server, "POST", "/knobs", question, X_Token="guess")[0] == 403
    assert send(server, "POST", "/knobs", question, X_Token=token, Origin="http://evil.example")[0] == 403
    assert send(server, "POST", "/nothing", question, X_Token=token)[0] == 400
    assert send(server, "POST", "/knobs", "{", X_Token=token)[0] == 400
    assert send(server, "POST", "/knobs", "x" * 70_000, X_Token=token)[0] == 400
    assert "error" in json.loads(send(server, "POST", "/knobs", "[]", X_Token=token)[1])
    with pytest.raises(DataError, match="choose another, or 0"):
        ExploreServer(server.workbench, {}, server.server_port)


# in a browser


def settled(page: Any, turn: Any) -> None:
    """Turn something, and wait for the answer to it."""
    before = int(page.evaluate("document.body.dataset.answered ?? 0"))
    turn()
    page.locator(f'body[data-answered="{before + 1}"]:not(.busy)').wait_for()


def totals(page: Any) -> dict[str, float]:
    return page.locator("#totals > div").evaluate_all(
        "all => Object.fromEntries(all.map(one => [one.dataset.key, Number(one.dataset.value)]))"
    )


def test_knobs_change_the_numbers_of_cost(browser, server, tmp_path):
    page, trouble = visit(browser, server.address, 1280)
    page.wait_for_selector("#totals > div")
    first = totals(page)
    expected = costed("--chip", "hyflexpim")
    assert first == {key: expected[key] for key in first}
    for label, (key, *_) in KNOBS.items():
        before = totals(page)
        settled(page, lambda label=label, key=key: page.get_by_label(label, exact=True).press(key))
        assert totals(page) != before, label
    settled(page, lambda: page.get_by_label("Prompt").fill("32"))
    turned = totals(page)
    page.get_by_label("Save the chip as").fill("turned")
    page.get_by_role("button", name="Save YAML").click()
    page.get_by_text("The same numbers").wait_for()
    path = tmp_path / "new" / "turned.yaml"
    saved = json.loads(load_chip(path).model_dump_json())
    for _, field, value in KNOBS.values():
        assert reduce(lambda place, name: place[name], field.split("."), saved) == value
    expected = costed("--chip", str(path), prompt=32)
    assert turned == {key: expected[key] for key in turned}
    settled(page, lambda: page.get_by_label("Prompt").fill("16"))
    settled(page, lambda: page.get_by_label("Other fields").fill("units.analog.rows: -1"))
    assert "units.analog.rows = -1 is not allowed" in page.get_by_role("alert").inner_text()
    settled(page, lambda: page.get_by_role("button", name="All knobs back").click())
    assert totals(page) == first
    settled(page, lambda: page.get_by_label("Prompt").fill("32"))
    assert totals(page)["energy"] > first["energy"]
    settled(page, lambda: page.locator("#chip").select_option("gpu-h100"))
    assert page.locator("#knobs label").count() == 2
    assert trouble == []
    page.context.close()


def test_page_fits_a_phone(browser, server):
    page, trouble = visit(browser, server.address, 390, "dark")
    page.wait_for_selector("#totals > div")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 27)"
    assert trouble == []
    page.context.close()


def test_model_named_like_a_script(bench):
    with ExploreServer(Workbench("<script>x</script>", bench.chips, bench.folder), {"chip": "hyflexpim"}) as server:
        assert "<script>x" not in server.page("nonce")
