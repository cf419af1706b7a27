"""Population statistics against their definitions, and the interval against what it promises."""

import numpy as np
import pytest

from cimphony.errors import DataError
from cimphony.evaluate import bootstrap_interval, describe, enough, good_share


def test_by_hand():
    found = describe([2.0, 1.0, 4.0, 3.0], better="min", digital=2.0, within=0.5)
    assert (found["chips"], found["mean"], found["min"], found["max"], found["worst"]) == (4, 2.5, 1, 4, 4)
    assert found["sd"] == pytest.approx((5 / 3) ** 0.5)
    assert found["quantiles"]["0.5"] == 2.5
    assert found["yield"] == 0.75
    assert describe([0.5, 0.9], better="max", digital=1.0, within=0.1)["yield"] == 0.5
    assert describe([0.5, 0.9], better="max")["worst"] == 0.5


def test_one_chip_has_no_spread():
    found = describe([1.0])
    assert (found["sd"], found["interval"], found["worst"], found["yield"]) == (None, None, None, None)
    with pytest.raises(DataError, match="at least one chip"):
        describe([])
    with pytest.raises(DataError, match="finite"):
        describe([1.0, float("nan")])


def test_good_means_not_much_worse_whatever_the_sign():
    assert good_share([-1.0, -0.9, -0.8], -1.0, "min", 0.15) == pytest.approx(2 / 3)
    assert good_share([1.0, 0.5], 1.0, "max", 0.0) == 0.5


def test_the_interval_covers_the_mean_as_often_as_it_says():
    drawn = np.random.default_rng(0)
    inside = 0
    for _ in range(300):
        low, high = bootstrap_interval(drawn.normal(3, 1, size=40), 0.9)
        inside += low <= 3 <= high
    assert 0.84 < inside / 300 < 0.95


def test_the_interval_is_reproducible_and_leaves_global_numbers_alone():
    before = np.random.get_state()[1].copy()
    chips = [1.0, 2.0, 4.0, 5.5, 7.1, 9.3, 9.8, 11.0]
    assert bootstrap_interval(chips) == bootstrap_interval(chips)
    assert bootstrap_interval(chips) != bootstrap_interval(chips, seed=1)
    assert (np.random.get_state()[1] == before).all()


def test_enough_when_narrow():
    assert not enough([1.0], 10.0)
    assert enough([1.0, 1.0, 1.0], 0.001)
    wide = [1.0, 2.0, 3.0, 2.0]
    assert not enough(wide, 0.05)
    assert enough(wide, 0.9)
