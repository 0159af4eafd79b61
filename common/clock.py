"""The type of a clock: code that needs the time takes one, so that tests can control it."""

from __future__ import annotations

import time
from collections.abc import Callable

Clock = Callable[[], float]
"""Seconds since the Unix epoch."""

wall_clock: Clock = time.time
