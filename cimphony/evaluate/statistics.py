"""What a population of chips says: spread, worst chip, yield, how sure the mean is, and whether there are enough."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from cimphony.errors import DataError
from cimphony.random import Stream

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_RESAMPLES = 2000


def describe(
    values: Sequence[float],
    *,
    better: Literal["min", "max"] | None = None,
    digital: float | None = None,
    within: float = 0.05,
    confidence: float = 0.95,
) -> dict[str, Any]:
    """Statistics of one measure over chips.

    Args:
        values: one finite number for each chip.
        better: whether small or large values are good; None leaves `worst` and `yield` out (None).
        digital: the value without a chip; None leaves `yield` out.
        within: a chip counts as good where it is at most this share worse than digital.
        confidence: of the interval of the mean.

    Returns chips, mean, sd (over the sample; None for one chip), min, max, quantiles (5, 25, 50, 75, 95 %, linear
    between chips), worst, yield (share of good chips), interval ([low, high] of the mean; None for one chip).
    """
    if not len(values) or not np.isfinite(values).all():
        raise DataError("statistics need at least one chip, and a finite value of each")
    sample = np.asarray(values, np.float64)
    worst = {"min": float(sample.max()), "max": float(sample.min())}
    return {
        "chips": len(sample),
        "mean": float(sample.mean()),
        "sd": float(sample.std(ddof=1)) if len(sample) > 1 else None,
        "min": float(sample.min()),
        "max": float(sample.max()),
        "quantiles": {f"{share:g}": float(np.quantile(sample, share)) for share in QUANTILES},
        "worst": None if better is None else worst[better],
        "yield": None if better is None or digital is None else good_share(values, digital, better, within),
        "interval": bootstrap_interval(values, confidence) if len(sample) > 1 else None,
    }


def good_share(values: Sequence[float], digital: float, better: Literal["min", "max"], within: float) -> float:
    """Yield: the share of chips at most `within` (a share of the digital value) worse than digital."""
    sign = 1.0 if better == "min" else -1.0
    return float(np.mean(sign * (np.asarray(values) - digital) <= within * abs(digital)))


def bootstrap_interval(values: Sequence[float], confidence: float = 0.95, *, seed: int = 0) -> list[float]:
    """Percentile bootstrap interval [low, high] of the mean; the same values give the same interval.

    Efron and Tibshirani 1993, chapter 13. Too narrow for few chips: of 5 normal values it covers the mean in about
    85 % of cases where 95 % are asked.
    """
    sample = np.asarray(values, np.float64)
    drawn = Stream(seed, "population", "bootstrap").uniform(0, _RESAMPLES * len(sample))
    means = sample[(drawn * len(sample)).astype(np.int64)].reshape(_RESAMPLES, len(sample)).mean(axis=1)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return [float(low), float(high)]


def enough(values: Sequence[float], precision: float, confidence: float = 0.95) -> bool:
    """Sequential stopping: whether half the interval of the mean is at most `precision` of the mean."""
    if len(values) < 2:
        return False
    low, high = bootstrap_interval(values, confidence)
    return (high - low) / 2 <= precision * abs(float(np.mean(values)))
