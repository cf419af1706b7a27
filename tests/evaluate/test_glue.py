"""GLUE files and metrics, on small files made here."""

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from sklearn.metrics import matthews_corrcoef

from cimphony.errors import DataError
from cimphony.evaluate.glue import load_glue, matthews, spearman


def test_both_kinds_of_files(tmp_path: Path) -> None:
    (tmp_path / "SST-2").mkdir()
    (tmp_path / "SST-2" / "dev.tsv").write_text("sentence\tlabel\na good film \t1\nbad\t0\n", encoding="utf-8")
    (tmp_path / "MRPC").mkdir()
    text = '\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t1\t2\tone "quoted\tone\n'
    (tmp_path / "MRPC" / "train.tsv.gz").write_bytes(gzip.compress(text.encode()))
    found = load_glue(tmp_path, "SST-2", "dev")
    assert (found.texts, found.labels.tolist()) == ([("a good film",), ("bad",)], [1, 0])
    assert load_glue(tmp_path, "MRPC", "train").texts == [('one "quoted', "one")]
    assert found.head(1).labels.tolist() == [1]


def test_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="choose one of CoLA"):
        load_glue(tmp_path, "QQP", "dev")
    with pytest.raises(DataError, match=r"holds no dev\.tsv"):
        load_glue(tmp_path, "CoLA", "dev")
    (tmp_path / "CoLA").mkdir()
    (tmp_path / "CoLA" / "dev.tsv").write_text("gj04\tone\t\tA sentence.\n", encoding="utf-8")
    with pytest.raises(DataError, match="example 1: not a line of CoLA"):
        load_glue(tmp_path, "CoLA", "dev")


def test_metrics_equal_the_usual_ones() -> None:
    generator = np.random.default_rng(0)
    predicted, truth = generator.integers(0, 2, 200), generator.integers(0, 2, 200)
    ours = matthews(torch.from_numpy(predicted), torch.from_numpy(truth))
    assert ours == pytest.approx(matthews_corrcoef(truth, predicted))
    assert matthews(torch.zeros(4), torch.tensor([0, 1, 0, 1])) == 0
    values = generator.normal(size=50)
    assert spearman(values, np.exp(values)) == pytest.approx(1)
    ties = generator.integers(0, 6, 100), generator.integers(0, 6, 100)
    assert spearman(*ties) == pytest.approx(spearmanr(*ties).statistic)
