"""The README, run: every Python block, every command, every link, every preset it names."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cimphony.chip import chip_names
from cimphony.cli import app

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "docs" / "index.md", ROOT / "docs" / "architecture.md"]
SMALL = {
    "demo": "--seeds 1 --max-tokens 64",
    "run": "--seeds 1 --max-tokens 64",
    "adapt": "--seeds 1 --max-tokens 1024",
}


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)


def commands() -> list[str]:
    """Commands of all pages, in order; what one writes, a later one may read."""
    return [line for page in PAGES for block in blocks(page, "sh") for line in block.splitlines() if line.strip()]


@pytest.fixture
def printed_by(tmp_path, monkeypatch, capsys):
    """What the n-th Python block of the README prints."""

    def run(number: int) -> str:
        monkeypatch.chdir(tmp_path)
        exec(compile(blocks(PAGES[0], "python")[number], "README.md", "exec"), {})
        return capsys.readouterr().out

    return run


def test_first_example(printed_by):
    printed = printed_by(0)
    digital, analog = (float(value) for value in re.findall(r"(?:digital|analog): ([\d.]+)", printed))
    assert 1 < digital < analog < 1.5 * digital
    assert "The with statement" in printed


def test_second_example(printed_by):
    """Short, and more ranks in reliable cells bring the digital model back."""
    assert len([line for line in blocks(PAGES[0], "python")[1].splitlines() if line.strip()]) <= 20
    digital, none, tenth, half, every = (float(value) for value in re.findall(r": ([\d.]+)", printed_by(1)))
    assert digital < half < tenth < none
    assert abs(every - digital) < 0.05 * digital


def test_commands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    seen = set()
    for line in commands():
        program, *arguments = shlex.split(line)
        if program == "make":
            continue
        assert program == "cimphony", line
        arguments += shlex.split(SMALL.get(arguments[0], ""))
        expanded = [path for one in arguments for path in (sorted(map(str, Path().glob(one))) if "*" in one else [one])]
        result = CliRunner().invoke(app, expanded)
        assert result.exit_code == 0, f"{line}: {result.output}"
        seen.add(arguments[0])
    assert seen == {"adapt", "demo", "run", "cost", "chips", "reproduce", "report", "validate"}


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_targets_exist():
    targets = [line.split()[1] for line in commands() if line.startswith("make ")]
    assert {"demo", "test", "check"} <= set(targets)
    for target in targets:
        subprocess.run(["make", "-n", target], cwd=ROOT, check=True, capture_output=True)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_paths_exist(page):
    text = page.read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (page.parent / link).exists(), link
    for path in re.findall(r"`((?:cimphony|tests|docs)/[\w/.-]+\w)`", text):
        assert (ROOT / path).exists(), path


def test_presets_exist():
    table = re.search(r"^\| preset.*?\n\n", PAGES[0].read_text(encoding="utf-8"), re.M | re.S)
    assert table
    named = {name for row in table[0].strip().splitlines()[2:] for name in re.findall(r"`([\w-]+)`", row.split("|")[1])}
    assert len(named) >= 7
    assert named <= set(chip_names())
