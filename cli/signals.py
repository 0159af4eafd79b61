"""Signals that end a command.

At first (`interrupt_on_signals`) SIGINT, SIGTERM and SIGHUP raise an exception, so that whatever
was begun is cleaned up, and the command ends with exit code 130. Commands that serve replace that
with `handle_signals`: the first signal asks for a clean end, the second ends the process at once.

SIGINT works in all commands, also where a shell has started them with `&` in a script, which
ignores it: `kill -INT` is sent on purpose. SIGHUP stays ignored where `nohup` ignores it.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable
from types import FrameType

from cli.exit_codes import INTERRUPTED

STOPPING_MESSAGE = "stopping: press Ctrl-C again to end at once"


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP, which unlike Ctrl-C always ends the command."""


def ending_signals() -> list[signal.Signals]:
    """Return the signals that end a command, without a SIGHUP that is ignored."""
    numbers = [signal.SIGINT, signal.SIGTERM]
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return numbers if ignored else [*numbers, signal.SIGHUP]


def interrupt_on_signals() -> None:
    """Let each signal that ends a command raise `KeyboardInterrupt` in the main thread."""
    for number in ending_signals():
        signal.signal(number, _terminate)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the one that asyncio replaces


def close_on_signals(close: Callable[[], object]) -> None:
    """Let each signal that ends a command close a screen, which restores the terminal."""

    def handle(number: int, frame: FrameType | None) -> None:
        import asyncio  # takes longer to import than the rest of a short command

        try:
            asyncio.get_running_loop().call_soon_threadsafe(close)
        except RuntimeError:  # not open yet, or closed already
            raise Terminated from None

    for number in ending_signals():
        signal.signal(number, handle)


def handle_signals(flags: Iterable[threading.Event]) -> None:
    """Set the flags on the first signal that ends a command; end the process on the second."""
    flags = tuple(flags)

    def handle(number: int, frame: FrameType | None) -> None:
        if any(flag.is_set() for flag in flags):
            # Everything durable is written in transactions: no accepted work is lost.
            os._exit(INTERRUPTED)
        print(STOPPING_MESSAGE, file=sys.stderr, flush=True)
        for flag in flags:
            flag.set()

    for number in ending_signals():
        signal.signal(number, handle)


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated
