"""Tests of the stopwatch for the parts of a task."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from common.protocol.updates import TaskSeconds
from worker.task_clock import TaskClock


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
