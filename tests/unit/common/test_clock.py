"""The clock of the coordinator does not follow jumps of the wall clock."""

from __future__ import annotations

import time

import pytest

from common.clock import steady_clock


@pytest.mark.parametrize("jump", [-86_400.0, 86_400.0])
def test_a_steady_clock_ignores_that_the_wall_clock_is_set(
    jump: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, wall = steady_clock(), time.time()
    monkeypatch.setattr(time, "time", lambda: wall + jump)
    first = clock()
    assert wall <= first <= clock() < wall + 3600
