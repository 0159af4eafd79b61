"""Norm clip: the bound follows the median of accepted norms."""

from __future__ import annotations

from coordinator.aggregation.clip import MIN_NORMS, clip_factor, norm_limit


def test_the_limit_is_a_multiple_of_the_median() -> None:
    assert norm_limit((1.0, 2.0, 2.0, 2.0, 9.0), 1.5) == 3.0


def test_there_is_no_limit_before_enough_norms_are_known_or_if_they_are_zero() -> None:
    assert norm_limit((2.0,) * (MIN_NORMS - 1), 1.5) is None
    assert norm_limit((0.0,) * MIN_NORMS, 1.5) is None


def test_a_norm_over_the_limit_is_scaled_down_to_it() -> None:
    assert clip_factor(3.0, 3.0) == 1.0
    assert clip_factor(6.0, 3.0) == 0.5
