"""Time as an argument: what needs a clock is handed one, so that tests can hold it still."""

from __future__ import annotations

import time
from collections.abc import Callable

Clock = Callable[[], float]
"""Seconds since the Unix epoch."""

wall_clock: Clock = time.time
