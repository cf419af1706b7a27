"""Every example runs, and prints what it promises."""

import runpy
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.py"))
SAYS = {
    "own_llama.py": ["21 layers on crossbars", "energy [J]", "throughput [/s]"],
    "questions.py": ["digital", "86400 s after programming", "three chips"],
    "peft_halora.py": ["chip 2 with the adapter", "adapters take", "merging is refused"],
    "noise_aware.py": ["as trained", "noise-aware"],
    "digits_vit.py": ["rram-neurram", "pcm-256", "a day"],
}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_example(path, capsys, monkeypatch, tmp_path):
    if path.name in ("digits_vit.py", "noise_aware.py"):
        pytest.importorskip("sklearn")
    if path.name == "peft_halora.py":
        pytest.importorskip("peft")
        monkeypatch.chdir(tmp_path)
    runpy.run_path(str(path), run_name="__main__")
    printed = capsys.readouterr().out
    assert all(words in printed for words in SAYS.get(path.name, [])), printed
    assert "nan" not in printed.lower()
