"""Signals raise an exception until a command handles them, also where the parent ignored them."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Iterator

import pytest

from cli.signals import Terminated, close_on_signals, handle_signals, interrupt_on_signals


@pytest.fixture(autouse=True)
def _restored_handlers() -> Iterator[None]:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [(number, signal.getsignal(number)) for number in numbers]
    yield
    for number, handler in before:
        signal.signal(number, handler)


@pytest.mark.parametrize("ignored", [False, True])
def test_an_interrupt_works_also_in_a_background_job(ignored: bool) -> None:
    if ignored:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    interrupt_on_signals()
    with pytest.raises(KeyboardInterrupt) as caught:
        os.kill(os.getpid(), signal.SIGINT)
    assert not isinstance(caught.value, Terminated)
    with pytest.raises(Terminated):
        os.kill(os.getpid(), signal.SIGTERM)


def test_nohup_keeps_its_meaning() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    interrupt_on_signals()
    handle_signals([threading.Event()])
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_command_that_serves_is_asked_to_stop(number: signal.Signals) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    stop = threading.Event()
    interrupt_on_signals()
    handle_signals([stop])
    os.kill(os.getpid(), number)
    assert stop.is_set()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_screen_is_closed_by_its_event_loop(number: signal.Signals) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

    async def show() -> None:
        closed = asyncio.Event()
        close_on_signals(closed.set)
        os.kill(os.getpid(), number)
        await asyncio.wait_for(closed.wait(), 60)

    asyncio.run(show())
    with pytest.raises(Terminated):  # no screen is open any more
        os.kill(os.getpid(), number)
