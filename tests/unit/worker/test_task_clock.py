"""Tests of the stopwatch for the parts of a task."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from common.protocol.updates import TaskSeconds
from tests.support.tui.builders import update
from worker.task_clock import TaskClock, describe_seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> TaskClock:
    """A clock whose time advances by 1, 2, 3, … seconds from one reading to the next."""

    def readings() -> Iterator[float]:
        now = 0.0
        for step in range(1, 100):
            yield now
            now += step

    monkeypatch.setattr(time, "perf_counter", readings().__next__)
    return TaskClock()


def test_a_part_that_is_entered_twice_has_the_sum_and_others_are_zero(clock: TaskClock) -> None:
    with clock.part("measure"):
        pass  # 0 to 1
    with clock.part("load"):
        pass  # 3 to 6
    with clock.part("measure"):
        pass  # 10 to 15
    assert clock.seconds() == TaskSeconds(measure=6.0, load=3.0)


def test_a_part_that_fails_counts(clock: TaskClock) -> None:
    with pytest.raises(ValueError, match="broken"), clock.part("fetch"):
        raise ValueError("broken")
    assert clock.seconds() == TaskSeconds(fetch=1.0)


def test_the_time_of_a_task_as_text_leaves_out_short_parts() -> None:
    stats = update().stats.model_copy(update={"train_seconds": 4.25})
    assert describe_seconds(stats) == "4.2 s"  # of an earlier release
    seconds = TaskSeconds(load=0.3, measure=0.8, encode=0.04)
    text = describe_seconds(stats.model_copy(update={"seconds": seconds}))
    assert text == "4.2 s of training and 1.1 s more (load 0.3, measure 0.8)"
