"""Handling of SIGINT and SIGTERM: the first asks for a clean end, the second ends at once."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterable
from types import FrameType

from cli.exit_codes import INTERRUPTED

STOPPING_MESSAGE = "stopping: press Ctrl-C again to end at once"


def handle_signals(flags: Iterable[threading.Event]) -> None:
    """Set the flags on the first SIGINT or SIGTERM, and end the process on the second."""
    flags = tuple(flags)

    def handle(number: int, frame: FrameType | None) -> None:
        if any(flag.is_set() for flag in flags):
            # Everything durable is written in transactions: no accepted work is lost.
            os._exit(INTERRUPTED)
        print(STOPPING_MESSAGE, file=sys.stderr, flush=True)
        for flag in flags:
            flag.set()

    signal.signal(signal.SIGINT, handle)
    signal.signal(signal.SIGTERM, handle)
