"""ACAM rows by decision trees: functions of several numbers, and NL-DPE's own flow. Needs scikit-learn (`trees`).

One tree for each bit of the code is grown on samples; the way to every leaf of class 1 is one row, an interval of
each variable. For one variable and dense samples these are the rows of `acam.compile_function`, up to the samples'
pitch.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cimphony.circuits.acam import Intervals, Quantiser
from cimphony.errors import DataError

_SCALE = 100.0  # inputs are stretched to +-100 before a tree is grown, whose thresholds are float32


@dataclass(frozen=True)
class Boxes:
    """Rows over several variables: low < x <= high in every one of them. Infinite bounds match everything."""

    low: Tensor  # float32 [row, variable]
    high: Tensor  # float32 [row, variable]
    bit: Tensor  # int64 [row]
    bits: int
    gray: bool

    def codes(self, points: Tensor) -> Tensor:
        """int64 codes [point] of points [point, variable]: match of all variables, OR of rows, Gray decoded."""
        x = points.to(torch.float32).unsqueeze(1)
        matches = ((x > self.low) & (x <= self.high)).all(dim=-1)
        word = torch.zeros(len(points), dtype=torch.int64)
        for bit in range(self.bits):
            word |= matches[:, self.bit == bit].any(dim=1).to(torch.int64) << bit
        if self.gray:
            for shift in (1, 2, 4, 8):
                word = word ^ (word >> shift)
        return word

    def intervals(self, quantiser: Quantiser, domain: tuple[float, float]) -> Intervals:
        """The same rows for one variable, as `acam` reads them; DataError for several."""
        if self.low.shape[1] != 1:
            raise DataError(f"these rows match {self.low.shape[1]} variables; intervals are of one")
        bounds = [torch.nextafter(side[:, 0], torch.tensor(torch.inf))[None] for side in (self.low, self.high)]
        return Intervals(bounds[0], bounds[1], self.bit, quantiser, self.gray, domain)


def grow(points: Tensor, codes: Tensor, bits: int, *, gray: bool = True, rows: list[int] | None = None) -> Boxes:
    """Rows from one decision tree for each bit, grown until its leaves are pure.

    Args:
        points: [sample, variable].
        codes: the code of each sample, 0 to 2^bits - 1.
        rows: budget of each bit, the lowest first: a tree has at most twice as many leaves and one, and rows of
            the rarest leaves are left out. None: no budget.
    """
    low, high, index = [], [], []
    words = codes ^ (codes >> 1) if gray else codes
    centre = (points.amin(dim=0) + points.amax(dim=0)) / 2
    stretch = _SCALE / (points.amax(dim=0) - centre).clamp(min=1e-30)
    stretched = ((points - centre) * stretch).to(torch.float32)
    for bit in range(bits):
        found = _leaves(stretched, (words >> bit) & 1, None if rows is None else rows[bit])
        low += [one[0] / stretch + centre for one in found]
        high += [one[1] / stretch + centre for one in found]
        index += [bit] * len(found)
    return Boxes(torch.stack(low).float(), torch.stack(high).float(), torch.tensor(index), bits, gray)


def _leaves(points: Tensor, labels: Tensor, budget: int | None) -> list[tuple[Tensor, Tensor]]:
    """Bounds (low, high) [variable] of every leaf of class 1; one row that never matches where there is none."""
    ends = torch.full((points.shape[1],), torch.inf, dtype=torch.float64)
    if not bool(labels.any()):
        return [(ends, -ends)]
    if bool(labels.all()):
        return [(-ends, ends)]
    from sklearn.tree import DecisionTreeClassifier

    leaves = None if budget is None else 2 * budget + 1  # rows and what lies between them
    tree: Any = DecisionTreeClassifier(random_state=0, max_leaf_nodes=leaves).fit(points.numpy(), labels.numpy()).tree_
    found: list[tuple[int, Tensor, Tensor]] = []
    stack = [(0, -ends, ends)]
    while stack:
        node, low, high = stack.pop()
        if tree.children_left[node] < 0:
            if tree.value[node][0].argmax() == 1:
                found.append((int(tree.n_node_samples[node]), low, high))
            continue
        variable, threshold = int(tree.feature[node]), float(tree.threshold[node])
        left, right = high.clone(), low.clone()
        left[variable], right[variable] = min(left[variable], threshold), max(right[variable], threshold)
        stack += [(int(tree.children_left[node]), low, left), (int(tree.children_right[node]), right, high)]
    found.sort(key=lambda one: -one[0])
    return [(low, high) for _, low, high in found[:budget]]
