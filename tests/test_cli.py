"""The command line: what each command prints, writes and refuses."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from functools import partial

import pytest
from transformers import GPT2LMHeadModel, T5ForConditionalGeneration
from typer.testing import CliRunner

from cimphony.chip import chip_names, load_chip
from cimphony.cli import app
from cimphony.cli import show as shows
from cimphony.papers.claims import Claim, measure
from cimphony.record import read_record

ALONE = {**os.environ, "PYTHONWARNINGS": "error", "HF_HUB_OFFLINE": "1"}


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def run(*arguments: str, code: int = 0) -> str:
    """Standard output; errors must be one line on standard error."""
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == code, result.output + result.stderr
    if code == 1:
        assert result.stderr.startswith("error: ")
        assert result.stderr.count("\n") == 1
        return result.stderr
    return result.stdout


@pytest.mark.parametrize(
    "command",
    [
        "demo",
        "run",
        "cost",
        "chips",
        "chips show",
        "chips schema",
        "chips compare",
        "report",
        "reproduce",
        "validate",
        "explore",
    ],
)
def test_help_has_an_example(command):
    text = run(*command.split(), "--help")
    assert "Example" in text
    assert f"cimphony {command.split()[0]}" in re.sub(r"\s+", " ", text)


def test_chips_one_line_each():
    lines = run("chips").splitlines()
    for name in chip_names():
        (line,) = [line for line in lines if line.split()[:1] == [name]]
        assert "nm" in line


def test_runs_as_a_module():
    command = [sys.executable, "-m", "cimphony", "chips"]
    assert "hyflexpim" in subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_chips_show_can_be_loaded_again(tmp_path):
    (tmp_path / "mine.yaml").write_text(run("chips", "show", "pcm-256"), encoding="utf-8")
    assert load_chip(tmp_path / "mine.yaml") == load_chip("pcm-256")


def test_chips_schema_is_json():
    assert "units" in json.loads(run("chips", "schema"))["properties"]


def test_cost_table_and_json(tmp_path):
    arguments = ("cost", "demo", "--chip", "hyflexpim", "--chip", "gpu-h100", "--prompt", "8", "--new-tokens", "2")
    table = run(*arguments)
    assert "Cost of one request: 8 tokens of a prompt, 2 new" in table
    assert "hyflexpim" in table
    assert "gpu-h100" in table
    assert "assumptions are behind these numbers; --assumptions prints them" in table
    assert "gpu-h100: gpu: roofline at 50% of peak" in run(*arguments, "--assumptions")
    data = json.loads(run(*arguments, "--json", "--out", "cost.json"))
    assert data["model"] == "demo"
    assert [one["chip"] for one in data["reports"]] == ["hyflexpim", "gpu-h100"]
    assert read_record("cost.json").results["reports"] == data["reports"]
    assert "Report: cost.html" in run("report", "cost.json", "-o", "cost.html")
    assert (tmp_path / "cost.html").is_file()


def test_run_and_go_on(tmp_path):
    arguments = ("run", "demo", "--chip", "pcm-256", "--max-tokens", "64", "--fidelity", "effective", "--age", "1d")
    assert "1 day" in run(*arguments, "--seeds", "1", "--out", "out")
    first = read_record("out/pcm-256.json")
    run(*arguments, "--seeds", "2", "--out", "out")
    both = read_record("out/pcm-256.json")
    assert [point["seed"] for point in both.results["points"]] == [0, 0, 1, 1]
    assert both.results["points"][:2] == first.results["points"]
    assert (tmp_path / "out" / "report.html").is_file()


def test_run_with_one_non_ideality(tmp_path):
    arguments = ("--chip", "pcm-256", "--max-tokens", "64", "--seeds", "2", "--out", "out")
    run("run", "demo", *arguments, "--only", "programming, drift")
    found = read_record("out/pcm-256-only-programming-drift-.json")
    assert found.chip["units"]["analog"]["adc"] is None
    run("run", "demo", *arguments, "--only", "programming", "--without", "programming")
    digital = read_record("out/pcm-256-only-nothing-.json").results
    assert {point["value"] for point in digital["points"]} == {digital["points"][0]["value"]}


def test_ranges_are_learnt_from_what_is_not_measured(tmp_path):
    (tmp_path / "short.txt").write_text("not much of a text, " * 20)
    cases = {
        "a": (("--data", "demo"), "the last 1024 tokens of the text, none of which is measured"),
        "b": (("--data", "short.txt"), "the last 256 tokens of the text, none of which is measured"),
        "c": (
            ("--data", "short.txt", "--max-tokens", "400"),
            "the last 256 tokens of the text, which are measured too",
        ),
        "d": (("--data", "short.txt", "--max-tokens", "400", "--ranges", "demo"), "the last 1024 tokens of demo"),
    }
    for out, (given, words) in cases.items():
        run("run", "demo", "--chip", "pcm-256", "--fidelity", "effective", "--seeds", "1", "--max-tokens", "64", *given,
            "--out", out)  # fmt: skip
        assert read_record(f"{out}/pcm-256.json").settings["calibration"] == words
        assert (
            f"ranges of inputs and converters were learnt from {words}" in (tmp_path / out / "report.html").read_text()
        )


def test_run_a_task(tmp_path):
    (tmp_path / "words.jsonl").write_text('{"max_new_tokens": 8}\n' + '{"prompt": "a", "answer": "b"}\n' * 3)
    arguments = ("--chip", "pcm-256", "--tasks", "words.jsonl", "--seeds", "1", "--out", "out", "--limit", "2")
    table = run("run", "demo", *arguments, "--fidelity", "effective")
    assert "Accuracy on words, direct" in table
    record = read_record("out/pcm-256-words.json")
    assert record.settings["questions"] == 2
    assert record.settings["calibration"] == "the first 1 questions that are not asked"
    assert {*record.results["points"][0]["details"]} == {"accuracy", "length", "truncated", "malformed"}
    assert "chat template" in run("run", "demo", *arguments, "--mode", "thinking", code=1)


def test_demo_from_start_to_report(tmp_path):
    printed = run("demo", "--seeds", "1", "--max-tokens", "64")
    for words in ("digital", "hyflexpim", "pcm-256", "gpu-h100", "1 day", "exact", "effective", "Report: runs/demo/"):
        assert words in printed
    written = {path.name for path in (tmp_path / "runs" / "demo").iterdir()}
    assert written == {"hyflexpim.json", "pcm-256.json", "cost.json", "report.html"}
    assert "hyflexpim" in run("demo", "--seeds", "1", "--max-tokens", "32")  # measured anew, not gone on with


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("cost demo --chip nope", "Presets: "),
        ("cost nowhere/at/all --chip ideal", "does not exist"),
        ("cost bert-base --chip hyflexpim --new-tokens 3", "new_tokens"),
        ("run demo --chip ideal --age soon", "for example 1d"),
        ("run demo --chip ideal --data missing.txt", "is not a file"),
        ("run gpt2 --chip ideal", "shape only"),
        ("run demo --chip ideal --chip ideal", "two chips are named 'ideal'"),
        ("run demo --chip ideal --tasks missing.jsonl", "cannot be read"),
        ("run demo --chip ideal --only noise", "choose from programming, read"),
        ("run encoder-decoder --chip ideal", "measures language models that go on with a text"),
        ("run wordy --chip ideal", "3000 words are not bytes"),
        ("run wordy --chip ideal --tasks words.jsonl", "no tokenizer"),
        ("report missing.json", "cannot be read"),
        ("reproduce nothing", "choose one of"),
        ("chips show nope", "neither a preset nor a file"),
    ],
)
def test_bad_input_is_one_line(arguments, words, tmp_path):
    (tmp_path / "words.jsonl").write_text('{"prompt": "a", "answer": "b"}\n')
    for name, model in (("encoder-decoder", T5ForConditionalGeneration), ("wordy", GPT2LMHeadModel)):
        if name in arguments:
            small = {"d_model": 4, "d_ff": 4, "d_kv": 4, "num_layers": 1, "num_heads": 1, "n_layer": 1, "n_head": 1}
            config = model.config_class(vocab_size=3000, bos_token_id=1, eos_token_id=1, **small)
            model(config).save_pretrained(tmp_path / name)
    assert words in run(*arguments.split(), code=1)


def test_unknown_option_is_usage():
    assert CliRunner().invoke(app, ["demo", "--nope"]).exit_code == 2


def test_quick_commands_never_load_torch():
    steps = ("import sys", "from cimphony.cli import app", "app(['chips'], standalone_mode=False)")
    code = "\n".join((*steps, "sys.exit('torch' in sys.modules)"))
    assert subprocess.run([sys.executable, "-c", code], env=ALONE, stdout=subprocess.DEVNULL).returncode == 0


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_interrupt_keeps_what_is_finished(tmp_path):
    code = "from cimphony.cli import main; main()"
    arguments = (
        "run",
        "demo",
        "--chip",
        "pcm-256",
        "--fidelity",
        "effective",
        "--seeds",
        "10000",
        "--max-tokens",
        "64",
    )
    command = [sys.executable, "-c", code, *arguments, "--out", "out"]
    piped = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    heard = partial(
        signal.signal, signal.SIGINT, signal.SIG_DFL
    )  # a shell's background jobs, these tests too, ignore it
    process = subprocess.Popen(command, env=ALONE, preexec_fn=heard, **piped)
    record = tmp_path / "out" / "pcm-256.json"
    end = time.monotonic() + 300
    while not (record.is_file() and read_record(record).results["points"]) and process.poll() is None:
        assert time.monotonic() < end
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, complaints = process.communicate(timeout=60)
    assert process.returncode == 130
    assert complaints.splitlines()[-1] == "interrupted; finished points are in out; the same command goes on from there"
    kept = read_record(record)
    assert kept.results["points"]
    assert not kept.complete


def test_chips_compare_lists_what_differs():
    printed = run("chips", "compare", "hyflexpim", "hyflexpim-corrected")
    assert "units.analog.encoding.flip" in printed
    assert "units.analog.rows" not in printed  # the same in both
    assert "differ in 0 fields" in " ".join(run("chips", "compare", "isaac", "isaac").split())


def test_long_work_says_where_it_is(monkeypatch, capsys):
    """As `reproduce` does, on a terminal or not; what is quick says nothing."""
    claims = [Claim(f"c{at}", "", f"statement {at}", 1.0, "", "derived", lambda: 1.0) for at in (1, 2)]
    for patience, said in ((60.0, []), (0.0, ["claim 1 of 2: statement 1", "claim 2 of 2: statement 2"])):
        monkeypatch.setattr(shows, "_PATIENCE", patience)
        with shows.telling("cimphony.papers"):
            measure(claims)
        out, lines = capsys.readouterr()
        assert (out, [line.split(" s  ")[1] for line in lines.splitlines()]) == ("", said)
    measure(claims)
    assert capsys.readouterr().err == ""


def test_validate_and_reproduce_leave_record_and_page(tmp_path):
    assert "held-out points" in run("validate", "--out", str(tmp_path))
    assert "not reproduced" in run("reproduce", "hyflexpim", "--out", str(tmp_path))
    for name in ("macros", "hyflexpim"):
        assert read_record(tmp_path / f"{name}.json").kind == "claims"
        assert "<html" in (tmp_path / f"{name}.html").read_text(encoding="utf-8")[:200]
