"""Bandwidth: rates as text, a token bucket with debt, and pauses that a stop ends."""

from __future__ import annotations

from threading import Event

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.settings.bandwidth import Throttle, TokenBucket, TransferStopped, parse_rate


class Passing(Event):
    """Flag whose `wait` lets the time pass at once."""

    def __init__(self, stop_at: float = float("inf")) -> None:
        super().__init__()
        self.now, self.stop_at = 0.0, stop_at

    def wait(self, timeout: float | None = None) -> bool:
        self.now += timeout or 0.0
        if self.now >= self.stop_at:
            self.set()
        return self.is_set()


@pytest.mark.parametrize(
    ("text", "rate"),
    [("10 Mbit/s", 1.25e6), ("500kB/s", 5e5), ("1.5 MiB/s", 1.5 * 2**20), ("8 kbit/s", 1000.0)],
)
def test_a_rate_is_a_number_and_a_unit(text: str, rate: float) -> None:
    assert parse_rate(text) == rate


@pytest.mark.parametrize(
    "text", ["10", "10 Mb/s", "fast", "-1 MB/s", "1 MB", "inf MB/s", "7 kbit/s"]
)
def test_other_texts_are_no_rate(text: str) -> None:
    with pytest.raises(ValueError, match=r"not a bandwidth|less than"):
        parse_rate(text)


def test_a_bucket_goes_into_debt_that_the_next_transfer_waits_for() -> None:
    bucket = TokenBucket(rate=100.0, burst=50.0, level=0.0, at=0.0)
    assert bucket.wait_s(0.0) == 0.0
    bucket = bucket.take(1000, 0.0)
    assert bucket.wait_s(0.0) == 10.0  # 1,000 bytes at 100 a second
    assert bucket.wait_s(4.0) == 6.0
    bucket = bucket.take(10, 60.0)  # no more than 50 bytes were kept
    assert bucket.level == 40.0 and bucket.wait_s(60.0) == 0.0


@given(
    st.lists(st.tuples(st.integers(1, 10**7), st.floats(0, 1000)), min_size=1, max_size=20),
    st.floats(1e3, 1e7),
)
def test_what_travels_before_a_transfer_is_within_rate_and_burst(
    transfers: list[tuple[int, float]], rate: float
) -> None:
    bucket, now, before = TokenBucket(rate, rate, 0.0, 0.0), 0.0, 0
    for nbytes, pause in transfers:
        now += pause
        now += bucket.wait_s(now)
        assert before <= (rate + rate * now) * (1 + 1e-9) + 1e-3
        bucket = bucket.take(nbytes, now)
        before += nbytes


def test_transfers_wait_for_those_before_them_and_workers_share_the_limit() -> None:
    passing, workers, turns = Passing(), [1], []
    throttle = Throttle(1000.0, lambda: workers[0], lambda: turns.append(1), lambda: passing.now)
    throttle.pace(5000, passing)
    assert passing.now == 0.0
    throttle.pace(5000, passing)
    assert passing.now == pytest.approx(5.0, abs=0.01) and len(turns) in (5, 6)
    workers[0] = 2
    throttle.pace(1, passing)
    assert passing.now == pytest.approx(15.0, abs=0.01)  # at 500 bytes a second


def test_a_stop_ends_the_pause() -> None:
    passing = Passing(stop_at=3.0)
    throttle = Throttle(1000.0, clock=lambda: passing.now)
    throttle.pace(10_000, passing)
    assert not throttle.try_take(1)
    with pytest.raises(TransferStopped):
        throttle.pace(1, passing)
    assert passing.now == 3.0


def test_without_a_limit_nothing_waits() -> None:
    throttle = Throttle(None)
    throttle.pace(10**12, Event())
    assert throttle.try_take(10**12)
