"""`cimphony adapt gradient-redistribution` on the embedded model, and the folder it leaves."""

from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import cimphony as cim
from cimphony.cli import app
from cimphony.nn.low_rank import FusedLowRank
from cimphony.record import read_record

COMMAND = (
    "adapt gradient-redistribution demo --data demo --slc-rate 0.25 --by singular_value --max-tokens 2048 --seeds 2 "
    "--lr 5e-4"
)


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapt")
    made = CliRunner().invoke(app, [*COMMAND.split(), "--fidelity", "effective", "--out", str(folder)])
    assert made.exit_code == 0, made.output
    assert "demo redistributed" in made.output
    return folder


def test_both_models_are_measured_on_the_same_chip(adapted: Path) -> None:
    before, after = (read_record(adapted / f"{name}.json") for name in ("before", "after"))
    assert before.chip == after.chip
    assert after.chip is not None
    assert after.chip["units"]["analog"]["cell"]["slc_rate"] == 0.25
    assert [len(record.results["points"]) for record in (before, after)] == [2, 2]
    assert before.settings["model"] != after.settings["model"]
    modes = {part["mode"] for row in after.layers for part in row.get("parts", []) if "rows" in part}
    assert modes == {"slc", "mlc"}  # ranks are inputs of U


def test_the_folder_is_a_model_again(adapted: Path) -> None:
    folder = adapted / "model"
    model, tokenizer = cim.load_model(folder)
    pairs = {name: module for name, module in model.named_modules() if isinstance(module, FusedLowRank)}
    assert pairs
    assert all(bool(pair.gradient.any()) for pair in pairs.values())
    ids = cim.load_text("demo", tokenizer)[None, :64]
    with torch.no_grad():
        digital = model(ids).logits
        cim.program_(cim.load_(model, folder), seed=0)
        for pair in pairs.values():
            kept = pair.left.tiles[0].assignment
            assert kept.axis == "row"
            largest = pair.sigma.abs().topk(len(kept.modes["slc"])).indices
            assert sorted(largest.tolist()) == kept.modes["slc"].tolist()
        analog = model(ids).logits
    assert 0 < (analog - digital).abs().max() < digital.abs().max()
    result = CliRunner().invoke(
        app, ["run", str(folder), "--chip", str(folder / "chip.yaml"), "--seeds", "1", "--max-tokens", "64",
              "--out", str(adapted / "run")]
    )  # fmt: skip
    assert result.exit_code == 0, result.output


def test_cost_sees_the_factors(adapted: Path) -> None:
    """Weights and multiply-adds within rounding of the model as it came; both sides of every layer are there."""
    before, after = (cim.trace(name, prompt=32) for name in ("demo", adapted / "model"))
    assert 0.97 < after.macs("static_matmul") / before.macs("static_matmul") <= 1
    names = {operation.layer for operation in after.operations}
    assert any(name.endswith(".left") for name in names)
    assert any(name.endswith(".right") for name in names)
    chip = cim.load_chip(adapted / "model" / "chip.yaml")
    assert cim.estimate(after, chip).energy > 0


def test_the_same_command_gives_the_same_model(tmp_path: Path) -> None:
    """The demo model has dropout, which draws from torch's own generator."""
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        state, out = torch.random.get_rng_state(), tmp_path / str(seed)
        short = [*COMMAND.replace("2048", "320").split(), "--fidelity", "effective", "--out", str(out)]
        assert CliRunner().invoke(app, short).exit_code == 0
        assert torch.equal(torch.random.get_rng_state(), state)
        found.append(read_record(out / "after.json").settings["model"])
    assert found[0] == found[1]


def test_noise_aware(tmp_path: Path) -> None:
    command = "adapt noise-aware demo --data demo --steps 2 --lr 1e-4 --seeds 1 --max-tokens 320 --chip"
    noisy = cim.load_chip("pcm-256").replace({"units.analog.fidelity": "effective"})
    (tmp_path / "chip.yaml").write_text(noisy.to_yaml())
    made = CliRunner().invoke(app, [*command.split(), str(tmp_path / "chip.yaml"), "--out", str(tmp_path / "out")])
    assert made.exit_code == 0, made.output
    assert "demo tuned with noise" in made.output
    before, after = (read_record(tmp_path / "out" / f"{name}.json") for name in ("before", "after"))
    assert before.chip == after.chip
    assert before.settings["model"] != after.settings["model"]
    assert (tmp_path / "out" / "report.html").exists()
    again = f"run {tmp_path / 'out' / 'model'} --data demo --chip {tmp_path / 'chip.yaml'} --max-tokens 64 --seeds 1"
    made = CliRunner().invoke(app, [*again.split(), "--out", str(tmp_path / "again")])
    assert made.exit_code == 0, made.output
    (record,) = [read_record(path) for path in (tmp_path / "again").glob("*.json")]
    assert record.settings["calibration"] == "saved with the model"
    (tmp_path / "words.jsonl").write_text('{"max_new_tokens": 4}\n' + '{"prompt": "a", "answer": "b"}\n' * 3)
    asked = [
        *again.replace("--data demo", f"--tasks {tmp_path / 'words.jsonl'}").replace("--max-tokens 64 ", "").split()
    ]
    made = CliRunner().invoke(app, [*asked, "--limit", "1", "--out", str(tmp_path / "asked")])
    assert made.exit_code == 0, made.output
    (record,) = [read_record(path) for path in (tmp_path / "asked").glob("*.json")]
    assert record.settings["calibration"] == "saved with the model"


def test_errors() -> None:
    def output(*more: str) -> str:
        return CliRunner().invoke(app, ["adapt", "gradient-redistribution", "demo", "--data", "demo", *more]).output

    assert "has one cell mode" in output("--chip", "pcm-256")
    assert "--out 'README.md/x' cannot be written: Not a directory" in output("--out", "README.md/x")
    assert "choose one of CoLA" in output("--task", "QQP")
