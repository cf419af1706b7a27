"""Fronts against their definition."""

from hypothesis import given
from hypothesis import strategies as st

from cimphony.sweep import front, uncovered
from cimphony.sweep.fronts import dominates

GOALS = {"a": "min", "b": "max"}
POINTS = st.lists(st.builds(lambda a, b: {"a": a, "b": b}, st.integers(0, 5), st.integers(0, 5)), max_size=20)


@given(POINTS)
def test_the_front_is_what_nothing_dominates(points):
    wanted = [one for one in points if not any(dominates(other, one, GOALS) for other in points)]
    found = front(points, GOALS, lambda one: one)
    assert sorted(map(repr, found)) == sorted(map(repr, wanted))
    assert [one["a"] for one in found] == sorted(one["a"] for one in found)


@given(POINTS, POINTS)
def test_a_front_covers_all_it_came_from(points, others):
    best = front(points, GOALS, lambda one: one)
    assert not uncovered(best, points, GOALS)
    for one in uncovered(points, others, GOALS):
        assert one in front([*points, one], GOALS, lambda row: row)


def test_points_without_a_goal_are_left_out():
    assert front([{"a": 1}], GOALS, lambda one: one) == []
    assert front([{"a": 1}], {}, lambda one: one) == []
