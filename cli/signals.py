"""SIGINT and SIGTERM: the first asks for a clean end, the second ends at once."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterable
from types import FrameType

from cli.main import INTERRUPTED

ASKED = "stopping: press Ctrl-C again to end at once"


def handle_signals(flags: Iterable[threading.Event]) -> None:
    """Set the flags on the first SIGINT or SIGTERM; leave the process on the second."""
    wanted = tuple(flags)

    def handle(number: int, frame: FrameType | None) -> None:
        if any(flag.is_set() for flag in wanted):
            # Everything durable is written in transactions: leaving now loses no accepted work.
            os._exit(INTERRUPTED)
        print(ASKED, file=sys.stderr, flush=True)
        for flag in wanted:
            flag.set()

    signal.signal(signal.SIGINT, handle)
    signal.signal(signal.SIGTERM, handle)
