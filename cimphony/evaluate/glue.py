"""GLUE tasks from their original tab-separated files, with their metrics. The files are the user's own."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cimphony.errors import DataError
from cimphony.evaluate.data import read_file
from cimphony.evaluate.metrics import evaluating, logits_of, run_batch

Metric = Literal["accuracy", "matthews", "spearman"]


@dataclass(frozen=True)
class Task:
    """Where a GLUE file keeps texts and labels, and how the task is scored."""

    texts: tuple[int, ...]  # columns
    label: int
    header: bool
    metric: Metric
    labels: int  # classes; 1: a score


TASKS = {
    "CoLA": Task((3,), 1, False, "matthews", 2),
    "MRPC": Task((3, 4), 0, True, "accuracy", 2),
    "SST-2": Task((0,), 1, True, "accuracy", 2),
    "STS-B": Task((7, 8), 9, True, "spearman", 1),
}


@dataclass(frozen=True)
class Examples:
    """Texts (one or two for each example) and labels of one split."""

    task: str
    texts: list[tuple[str, ...]]
    labels: Tensor  # int64 classes or float32 scores

    def head(self, count: int | None) -> "Examples":
        """The first examples."""
        return Examples(self.task, self.texts[:count], self.labels[:count])


def load_glue(folder: str | Path, task: str, split: Literal["train", "dev"]) -> Examples:
    """One split of a task from `folder/TASK/SPLIT.tsv` or `.tsv.gz`.

    Raises DataError for an unknown task, a missing file or a malformed line.
    """
    if task not in TASKS:
        raise DataError(f"task {task!r} is not known; choose one of {', '.join(TASKS)}")
    found = [path for ending in (".tsv", ".tsv.gz") if (path := Path(folder) / task / f"{split}{ending}").is_file()]
    if not found:
        raise DataError(f"{Path(folder) / task} holds no {split}.tsv or {split}.tsv.gz")
    return _parse(found[0], task)


def _parse(path: Path, task: str) -> Examples:
    layout = TASKS[task]
    lines = read_file(path, "task file", "GLUE's own .tsv or .tsv.gz").splitlines()[1 if layout.header else 0 :]
    texts: list[tuple[str, ...]] = []
    labels: list[float] = []
    for number, line in enumerate(lines, start=1):
        fields = line.split("\t")
        try:
            texts.append(tuple(fields[column].strip() for column in layout.texts))
            labels.append(float(fields[layout.label]))
        except (IndexError, ValueError):
            raise DataError(f"{path}, example {number}: not a line of {task}: {line[:60]!r}") from None
    return Examples(task, texts, torch.tensor(labels, dtype=torch.float32 if layout.labels == 1 else torch.int64))


def batches(examples: Examples, tokenizer: Any, size: int, length: int = 128) -> list[tuple[dict[str, Tensor], Tensor]]:
    """(inputs, labels) padded to the longest text of each batch; sorted by length, which saves padding."""
    order = sorted(range(len(examples.texts)), key=lambda index: sum(map(len, examples.texts[index])))
    groups = [order[start : start + size] for start in range(0, len(order), size)]
    made = []
    for group in groups:
        columns = [list(column) for column in zip(*(examples.texts[index] for index in group), strict=True)]
        encoded = tokenizer(*columns, truncation=True, max_length=length, padding=True, return_tensors="pt")
        made.append((dict(encoded), examples.labels[group]))
    return made


def score(model: nn.Module, task: str, data: Sequence[tuple[dict[str, Tensor], Tensor]]) -> float:
    """The task's metric of a classifier or regressor on prepared batches."""
    return judge(task, outputs_of(model, data), torch.cat([labels for _, labels in data]))


def outputs_of(model: nn.Module, data: Sequence[tuple[dict[str, Tensor], Tensor]]) -> Tensor:
    """The model's logits [example, class] on prepared batches, in their order."""
    device = next(model.parameters()).device
    with evaluating(model):
        return torch.cat([logits_of(run_batch(model, inputs, device)).cpu() for inputs, _ in data])


def judge(task: str, outputs: Tensor, truth: Tensor) -> float:
    """The task's metric of logits [example, class] against labels [example]."""
    if outputs.isnan().any():
        raise DataError("the model's outputs hold NaN; check its weights and inputs")
    metric = TASKS[task].metric
    if metric == "spearman":
        return spearman(outputs.flatten().numpy(), truth.numpy())
    predicted = outputs.argmax(dim=-1)
    return float((predicted == truth).double().mean()) if metric == "accuracy" else matthews(predicted, truth)


def matthews(predicted: Tensor, truth: Tensor) -> float:
    """Matthews' correlation of two binary labellings; 0 where one of them is constant."""
    table = np.array([[float(((predicted == p) & (truth == t)).sum()) for t in (0, 1)] for p in (0, 1)])
    product = table.sum(axis=0).prod() * table.sum(axis=1).prod()
    return float((table[0, 0] * table[1, 1] - table[0, 1] * table[1, 0]) / np.sqrt(product)) if product else 0.0


def spearman(one: NDArray[Any], two: NDArray[Any]) -> float:
    """Spearman's rank correlation; ties share their mean rank."""
    return float(np.corrcoef(_ranks(one), _ranks(two))[0, 1])


def _ranks(values: NDArray[Any]) -> NDArray[np.float64]:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse]
