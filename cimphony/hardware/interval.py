"""The same activation in an analog content-addressable memory: rows that each match one interval of the input."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Acam:
    """Intervals of the input, [low, high) in codes, in which each bit of the result is 1: one row each."""

    intervals: tuple[NDArray[np.int64], ...]  # [row, 2] by bit, the lowest first
    gray: bool
    minimum: int  # code of the lowest result

    @property
    def rows(self) -> list[int]:
        """Rows by bit of the result."""
        return [len(one) for one in self.intervals]

    def evaluate(self, x: Any) -> NDArray[np.int64]:
        """Results of input codes: a bit is 1 where any of its rows matches."""
        codes = np.asarray(x, np.int64)[..., None]
        word = np.zeros(codes.shape[:-1], np.int64)
        for bit, rows in enumerate(self.intervals):
            word |= ((codes >= rows[:, 0]) & (codes < rows[:, 1])).any(axis=-1).astype(np.int64) << bit
        if self.gray:
            for shift in (16, 8, 4, 2, 1):
                word ^= word >> shift
        return word + self.minimum


def acam(results: Any, *, first: int, gray: bool = True, minimum: int | None = None) -> Acam:
    """The rows for a function given by its result at every input code from `first` on.

    Args:
        results: integers; neighbouring inputs with equal results share rows, so fewer result bits take fewer rows.
        gray: results in Gray code, in which a step of 1 changes one bit.
        minimum: result whose code is 0; None: the lowest.
    """
    values = np.asarray(results, np.int64)
    minimum = int(values.min()) if minimum is None else minimum
    words = values - minimum
    words = words ^ (words >> 1) if gray else words
    intervals: list[NDArray[np.int64]] = []
    for bit in range(max(int(words.max()).bit_length(), 1)):
        ones = np.concatenate([[0], (words >> bit) & 1, [0]])
        edges = np.flatnonzero(np.diff(ones)).reshape(-1, 2) + first
        intervals.append(edges)
    return Acam(tuple(intervals), gray, minimum)
