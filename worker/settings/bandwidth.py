"""Bandwidth that a site grants: rates as text, a token bucket, and the pause before a transfer.

A transfer is what is sent or fetched at once: a chunk of up to 8 MiB. It travels as fast as the
network allows; the pauses between transfers keep the mean at the rate.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from threading import Event as Flag

from common.clock import Clock

_UNITS = {
    "bit/s": 1 / 8, "kbit/s": 1e3 / 8, "Mbit/s": 1e6 / 8, "Gbit/s": 1e9 / 8,
    "B/s": 1.0, "kB/s": 1e3, "MB/s": 1e6, "GB/s": 1e9,
    "KiB/s": 2.0**10, "MiB/s": 2.0**20, "GiB/s": 2.0**30,
}  # fmt: skip
"""Bytes per second of each unit."""
MIN_RATE = 1000.0
MAX_RATE = 1e12
BURST_S = 1.0  # of unused bandwidth that is kept
_TURN_S = 1.0  # longest pause between two calls of `on_wait`
_LEAST_S = 0.001  # shortest pause; less may be lost in the rounding of the clock
_RATE = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]+/s)")


def parse_rate(text: str) -> float:
    """Return the bytes per second of a text such as `10 Mbit/s` or `500 kB/s`.

    Raises:
        ValueError: The text is not a rate, or less than 1 kB/s.
    """
    match = _RATE.fullmatch(text.strip())
    if match is None or match[2] not in _UNITS:
        units = ", ".join(_UNITS)
        raise ValueError(f"{text!r:.80} is not a bandwidth: write a number and one of {units}")
    rate = float(match[1]) * _UNITS[match[2]]
    if rate > MAX_RATE:
        raise ValueError(f"{text:.80} is more than 1 TB/s: write `unlimited`")
    if rate < MIN_RATE:
        raise ValueError(f"{text} is less than 1 kB/s, at which no update arrives in time")
    return rate


@dataclass(frozen=True)
class TokenBucket:
    """Bucket of bytes that may be transferred, which fills at a rate and may go into debt.

    A transfer may begin while there is no debt, however large it is; the next one waits until its
    debt is paid. So no more bytes than `burst` + `rate` · t travel before a transfer that begins
    after t seconds.
    """

    rate: float  # bytes per second
    burst: float  # bytes at most
    level: float  # bytes at the time `at`; below 0: the debt
    at: float  # seconds

    def wait_s(self, now: float) -> float:
        """Return the seconds from `now` until a transfer may begin."""
        return max(0.0, -self._level(now) / self.rate)

    def take(self, nbytes: int, now: float) -> TokenBucket:
        """Return the bucket after a transfer that begins now."""
        return TokenBucket(self.rate, self.burst, self._level(now) - nbytes, now)

    def with_rate(self, rate: float, now: float) -> TokenBucket:
        """Return the bucket with another rate from now on."""
        burst = BURST_S * rate
        return TokenBucket(rate, burst, min(burst, self._level(now)), now)

    def _level(self, now: float) -> float:
        return min(self.burst, self.level + self.rate * max(0.0, now - self.at))


class TransferStopped(Exception):
    """The worker was stopped while it waited for its turn."""


class Throttle:
    """Limit of the bandwidth of one thread's transfers; a limit of None lets all pass.

    Args:
        limit: Bytes per second of all workers of this machine together.
        share: Returns the number of these workers, among whom the limit is divided.
        on_wait: Called at least once a second during a pause.
        clock: Monotonic.
    """

    def __init__(
        self,
        limit: float | None,
        share: Callable[[], int] = lambda: 1,
        on_wait: Callable[[], None] = lambda: None,
        clock: Clock = time.monotonic,
    ) -> None:
        self._limit, self._share = limit, share
        self._on_wait, self._clock = on_wait, clock
        now = clock()
        self._bucket = None if limit is None else TokenBucket(limit, limit * BURST_S, 0.0, now)

    def pace(self, nbytes: int, stop: Flag) -> None:
        """Wait until a transfer may begin.

        Raises:
            TransferStopped: `stop` was set first.
        """
        while not stop.is_set():
            if not (delay := self._take(nbytes)):
                return
            self._on_wait()
            stop.wait(min(max(delay, _LEAST_S), _TURN_S))
        raise TransferStopped

    def try_take(self, nbytes: int) -> bool:
        """Return whether a transfer may begin now."""
        return not self._take(nbytes)

    def _take(self, nbytes: int) -> float:
        """Begin a transfer and return 0, or return the seconds to wait first."""
        if self._limit is None or self._bucket is None:
            return 0.0
        now = self._clock()
        bucket = self._bucket.with_rate(self._limit / max(1, self._share()), now)
        delay = bucket.wait_s(now)
        self._bucket = bucket if delay else bucket.take(nbytes, now)
        return delay
