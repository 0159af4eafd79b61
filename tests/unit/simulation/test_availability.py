"""Times off and cuts: what takes a while stands still in them."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from simulation.population.availability import (
    elapse,
    is_inside,
    merge,
    random_outages,
    until_gone,
)


def test_overlapping_intervals_become_one() -> None:
    assert merge([(5, 9), (0, 2), (1, 3), (9, 10)]) == ((0, 3), (5, 10))


def test_the_end_of_an_interval_is_outside() -> None:
    assert [is_inside(((2, 4),), at) for at in (1.9, 2, 3.9, 4)] == [False, True, True, False]


@pytest.mark.parametrize(
    ("start", "seconds", "end"),
    [(0, 2, 2), (0, 4, 10), (0, 5, 11), (3, 2, 11), (4, 0.5, 10.5), (12, 3, 15), (0, 15, 41)],
)
def test_what_is_under_way_stands_still_in_a_cut(start: float, seconds: float, end: float) -> None:
    assert elapse(((4.0, 10.0), (20.0, 40.0)), start, seconds) == end


def test_random_outages_take_the_share_of_the_time() -> None:
    spans = list(random_outages(0.75, 30.0, np.random.default_rng(1), until=200_000.0))
    off = sum(end - start for start, end in spans) / spans[-1][1]
    assert off == pytest.approx(0.25, abs=0.01)
    assert all(a[1] < b[0] for a, b in itertools.pairwise(spans))


def test_a_client_that_is_gone_does_not_come_back() -> None:
    spans = [(1.0, 2.0), (5.0, 8.0), (9.0, 10.0)]
    assert list(until_gone(spans, 6.0)) == [(1.0, 2.0), (5.0, math.inf)]
    assert list(until_gone(spans, 20.0)) == [*spans, (20.0, math.inf)]
    assert list(until_gone(spans, math.inf)) == spans
