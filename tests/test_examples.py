"""Every example runs, and prints what it promises."""

import runpy
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.py"))
SAYS = {
    "own_llama.py": ["21 layers on crossbars", "energy [J]", "throughput [/s]"],
    "questions.py": ["digital", "86400 s after programming", "three chips"],
    "digits_vit.py": ["rram-neurram", "pcm-256", "a day"],
}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_example(path, capsys):
    if path.name == "digits_vit.py":
        pytest.importorskip("sklearn")
    runpy.run_path(str(path), run_name="__main__")
    printed = capsys.readouterr().out
    assert all(words in printed for words in SAYS.get(path.name, [])), printed
    assert "nan" not in printed.lower()
