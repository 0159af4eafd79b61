"""Tests of times as text."""

from __future__ import annotations

from tests.support.tui.builders import update
from tui.formatting import format_parts


def test_the_parts_of_a_task_are_named_without_those_that_took_no_time() -> None:
    seconds = {"fetch": 0.04, "load": 0.3, "measure": 0.8}
    stats = update(train_seconds=14.2, seconds=seconds).stats
    assert format_parts(stats.parts()) == "training 14.2 s, load 0.3, measure 0.8"


def test_an_update_of_an_earlier_release_has_no_parts() -> None:
    assert format_parts(update().stats.parts()) == ""
