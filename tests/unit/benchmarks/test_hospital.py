"""Figures of the hospital scenario."""

from __future__ import annotations

from benchmarks.hospital import curves
from benchmarks.hospital.curves import Point
from benchmarks.hospital.scenario import FULL

VERSIONS = [Point(0.0, 0.7, 0.5), Point(60.0, 0.6, 0.6), Point(300.0, 0.5, 0.7)]


def test_time_to_a_loss_is_that_of_the_first_version_which_has_it() -> None:
    assert curves.time_to([*VERSIONS, Point(360.0, 0.4, 0.8)], 0.55) == 300.0
    assert curves.time_to(VERSIONS, 0.45) is None


def test_a_pause_counts_from_the_beginning_of_the_span_to_the_next_version() -> None:
    assert curves.longest_pause(VERSIONS, 100.0, 200.0, 1000.0) == 200.0
    assert curves.longest_pause(VERSIONS, 10.0, 50.0, 1000.0) == 50.0


def test_the_last_version_is_followed_by_a_pause_until_the_end() -> None:
    assert curves.longest_pause(VERSIONS, 400.0, 500.0, 1000.0) == 600.0


def test_one_site_has_twenty_times_the_steps_of_another() -> None:
    steps = [site.steps for site in FULL.sites]
    assert max(steps) == 20 * min(steps)
