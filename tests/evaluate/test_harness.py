"""The lm-evaluation-harness on a converted model, offline, on tasks of our own."""

import json
import random

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from cimphony.chip import load_chip
from cimphony.cli.app import app
from cimphony.errors import DataError
from cimphony.evaluate import harness
from cimphony.nn import analog_layers
from cimphony.record import read_record
from tests.evaluate.words import model, tokenizer

pytest.importorskip("lm_eval")
CHOICES = {"output_type": "multiple_choice", "doc_to_choice": ["a", "b", "c"]}
WRITING = {"output_type": "generate_until", "generation_kwargs": {"until": ["<eos>"], "max_gen_toks": 3}}
CHIP = load_chip("pcm-256").replace({"units.analog.fidelity": "effective"})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two tasks on six questions."""
    made = tmp_path_factory.mktemp("tasks")
    rows = [{"prompt": f"{one} {two}", "answer": "abc"[at % 3]} for at, (one, two) in enumerate(["ab", "bc", "ca"] * 2)]
    (made / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for name, kind, metric in (("letters", CHOICES, "acc"), ("writing", WRITING, "exact_match")):
        task = {
            "task": name, "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(made / "rows.jsonl")}},
            "test_split": "test", "doc_to_text": "{{prompt}}", "doc_to_target": "{{answer}}", **kind,
            "metric_list": [{"metric": metric, "aggregation": "mean", "higher_is_better": True}],
        }  # fmt: skip
        (made / f"{name}.yaml").write_text(json.dumps(task))  # JSON is YAML
    return made


@pytest.fixture(autouse=True)
def _offline(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def test_a_folder_of_tasks_over_chips(folder, tmp_path):
    net = model()
    states = random.getstate(), str(np.random.get_state()), torch.get_rng_state()
    found = harness.harness_tasks(folder)
    assert sorted(found) == ["letters", "writing"]
    for name, metric in (("letters", "acc"), ("writing", "exact_match")):
        given = {"loaded": found[name], "seeds": [0, 1], "record_path": tmp_path / f"{name}.json", "progress": False}
        record = harness.evaluate_harness(net, tokenizer(), name, CHIP, **given)
        assert record.results["metric"] == f"{metric} on {name}"
        assert {*record.results["digital_details"]} == {metric, f"{name} {metric}"}
        assert [point["seed"] for point in record.results["points"]] == [0, 1]
        assert record.settings["harness"]
        again = harness.evaluate_harness(net, tokenizer(), name, CHIP, **given)
        assert again.results == record.results
    assert not analog_layers(net)
    assert (random.getstate(), str(np.random.get_state())) == states[:2]
    assert torch.equal(torch.get_rng_state(), states[2])


def test_the_score_is_the_harness_s_own(folder):
    net, text = model(), tokenizer()
    record = harness.evaluate_harness(
        net, text, "letters", load_chip("ideal"), loaded=harness.harness_tasks(folder / "letters.yaml")["letters"],
        seeds=[0], limit=4, progress=False,
    )  # fmt: skip
    best = []
    for prompt in ("a b", "b c", "c a", "a b"):  # by hand: which letter is likeliest after the prompt
        logits = net(**text(prompt, return_tensors="pt")).logits[0, -1]
        best.append(int(logits[text("a b c")["input_ids"]].argmax()))
    assert record.settings["calibration"].endswith("examples behind those that are measured")
    accuracy = sum(guess == wanted for guess, wanted in zip(best, (0, 1, 2, 0), strict=True)) / 4
    assert record.results["digital"] == record.results["points"][0]["value"] == accuracy


def test_first_metric_of_several():
    rows = {"a": {"name": "a", "em,strict": 0.5, "em,loose": 1.0, "em_stderr,strict": 0.1}, "b": {"em,strict": 1.0}}
    assert harness._scores(rows, "both", "em") == {
        "em,strict": 0.75, "a em,strict": 0.5, "a em,loose": 1.0, "b em,strict": 1.0,
    }  # fmt: skip
    assert harness._scores(rows, "b", "em")["em,strict"] == 1.0
    with pytest.raises(DataError, match="no number for its metric acc"):
        harness._scores(rows, "a", "acc")


def test_tasks_on_the_command_line(folder, tmp_path, monkeypatch):
    net, text = model(), tokenizer()
    monkeypatch.setattr("cimphony.evaluate.load_model", lambda name: (net, text))
    asked = ("run", "mine", "--chip", "pcm-256", "--seeds", "2", "--fidelity", "effective", "--limit", "3")
    named = f"{folder / 'letters.yaml'},{folder / 'writing.yaml'}"
    done = CliRunner().invoke(app, [*asked, "--tasks", named, "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    for name in ("letters", "writing"):
        record = read_record(tmp_path / f"pcm-256-{name}.json")
        assert record.complete
        assert record.results["groups"][0]["sd"] is not None
    text.bos_token = text.eos_token = None
    done = CliRunner().invoke(app, [*asked, "--tasks", named, "--out", str(tmp_path)])
    assert "begins or ends a text" in done.stderr


def test_unknown_tasks_and_no_harness(tmp_path, monkeypatch):
    (tmp_path / "broken.yaml").write_text("task: [")
    with pytest.raises(DataError, match="cannot be loaded by lm-eval"):
        harness.harness_tasks(tmp_path / "broken.yaml")

    def absent(name, *rest):
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(harness, "import_module", absent)
    with pytest.raises(DataError, match=r"pip install 'cimphony\[lm-eval\]'"):
        harness.harness_tasks("gsm8k")
