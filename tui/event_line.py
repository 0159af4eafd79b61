"""The feed as plain lines: what `--plain` prints, and what a log file or a pipe gets."""

from __future__ import annotations

import time

from common.protocol.feed import Event

MARK = {"info": " ", "warning": "!", "error": "x"}


def format_event(event: Event) -> str:
    """`12:34:56   version    version 3: …`; the mark in the middle is ! or x where it matters."""
    clock = time.strftime("%H:%M:%S", time.localtime(event.at))
    return f"{clock} {MARK[event.level]} {event.kind:<10} {event.text}"
