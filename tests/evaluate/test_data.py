"""Texts from lists, files and the hub; one clear error for each that cannot be used."""

import gzip
import json
import sys

import pytest
import torch

from cimphony.errors import DataError
from cimphony.evaluate import calibration_windows, load_text, token_name


class Words:
    """A tokenizer with one id per word."""

    def __call__(self, text, **_):
        return {"input_ids": [len(word) for word in text.split()]}


def as_text(tokens):
    return bytes(tokens.tolist()).decode()


def test_bytes_of_a_list():
    assert as_text(load_text(["é", "b"])) == "é\n\nb"
    assert load_text(["x", "y", "zz"], Words()).tolist() == [1, 1, 2]
    assert (token_name(None), token_name(Words())) == ("byte", "token")


@pytest.mark.parametrize("packed", [False, True])
def test_files(tmp_path, packed):
    def write(name, text):
        path = tmp_path / (name + ".gz" * packed)
        path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
        return path

    assert as_text(load_text(write("a.txt", "\ufeffone\ntwo\n"))) == "one\ntwo\n"
    lines = [json.dumps({"text": "one", "id": 3}), json.dumps("two"), ""]
    assert as_text(load_text(str(write("a.jsonl", "\n".join(lines))))) == "one\n\ntwo"


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.txt", b"", "is empty"),
        ("a.txt", b" \n", "is empty"),
        ("a.txt", b"ab\xff", r"not UTF-8 \(byte 2\)"),
        ("a.txt.gz", b"plain", "cannot be read"),
        ("a.csv", b"a,b", "of no known kind"),
        ("a.jsonl", b'{"text": "a"}\n{', "line 2: not JSON"),
        ("a.jsonl", b'{"words": "a"}', "line 1: a line must be"),
    ],
)
def test_files_that_cannot_be_used(tmp_path, name, data, message):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=message):
        load_text(tmp_path / name)


def test_missing_files_and_wrong_lists(tmp_path):
    for missing in (tmp_path / "none.txt", "none.jsonl.gz", "./none", tmp_path):
        with pytest.raises(DataError, match="is not a file"):
            load_text(missing)
    with pytest.raises(DataError, match="not a string"):
        load_text(["a", 3])


class FakeSplit(dict):
    @property
    def column_names(self):
        return list(self)


@pytest.mark.parametrize(
    ("spec", "asked", "text"),
    [
        ("wiki", ("wiki", None), "test text"),
        ("wiki:v1", ("wiki", "v1", None), "test text"),
        ("wiki:v1:train", ("wiki", "v1", "train"), "train text"),
        ("wiki:train", ("wiki", "train"), "train text"),
    ],
)
def test_hub_datasets(monkeypatch, spec, asked, text):
    calls = []

    def load_dataset(*name, split):
        calls.append((*name, split))
        splits = {kind: FakeSplit(text=[f"{kind} text"]) for kind in ("train", "test")}
        return splits if split is None else splits[split]

    monkeypatch.setitem(sys.modules, "datasets", type("Fake", (), {"load_dataset": staticmethod(load_dataset)}))
    assert as_text(load_text(spec)) == text
    assert calls == [asked]


def test_hub_datasets_that_cannot_be_used(monkeypatch):
    def load_dataset(name, split):
        if name == "none":
            raise ConnectionError("no route")
        return FakeSplit(words=["a"])

    monkeypatch.setitem(sys.modules, "datasets", type("Fake", (), {"load_dataset": staticmethod(load_dataset)}))
    with pytest.raises(DataError, match="can be reached: no route"):
        load_text("none")
    with pytest.raises(DataError, match="no column 'text', only words"):
        load_text("words:test")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"pip install 'cimphony\[hub\]'"):
        load_text("wiki")


def test_ranges_are_learnt_behind_what_is_measured():
    text = torch.arange(2000)
    for scored, first, last, words in (
        (512, 976, 1999, "the last 1024 tokens of the text, none of which is measured"),
        (1500, 1744, 1999, "the last 256 tokens of the text, none of which is measured"),  # two windows do not fit
        (1800, 976, 1999, "the last 1024 tokens of the text, which are measured too"),
    ):
        windows, said = calibration_windows(text, 256, scored)
        assert (int(windows[0, 0]), int(windows[-1, -1]), windows.shape[1], said) == (first, last, 256, words)
        assert ("none" in said) == (scored <= first)
