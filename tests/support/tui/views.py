"""Views made by hand, and a screen that holds one pane."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from textual.app import App, ComposeResult
from textual.message import Message
from textual.pilot import Pilot
from textual.widget import Widget

from common.protocol.feed import Event
from common.protocol.heartbeat import Heartbeat
from common.protocol.versions import SampleAnswer, UpdateSummary, VersionSummary
from common.store.view import ClientRow, FederationView, QueueRow, RunInfo
from tui.data.reader import Snapshot

LONG = 20.0
"""Bounds a wait for something that must come; seconds."""


class Pane(Protocol):
    """What the app asks of a pane."""

    def show(self, snapshot: Snapshot) -> None: ...


class Host(App[None]):
    """One pane, and the messages that it sends to the app."""

    def __init__(self, pane: Widget) -> None:
        super().__init__()
        self.pane: Any = pane
        self.heard: list[Message] = []

    def compose(self) -> ComposeResult:
        yield self.pane


def drive(
    host: Host, script: Callable[[Pilot[None]], Awaitable[None]], size: tuple[int, int] = (100, 20)
) -> None:
    """Run a script against a screen."""

    async def run() -> None:
        async with host.run_test(size=size) as pilot:
            await script(pilot)

    asyncio.run(run())


async def until(pilot: Pilot[None], what: str, holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LONG
    while not holds():
        assert time.monotonic() < deadline, f"did not happen: {what}\n{screen(pilot.app)}"
        await pilot.pause()


def screen(app: App[None]) -> str:
    """What is on the screen, as text."""
    width = app.size.width
    strips = app.screen._compositor.render_strips(app.size)
    return "\n".join(strip.text[:width].rstrip() for strip in strips)


def event(
    text: str, level: str = "info", kind: str = "note", at: float = 0.0, **refs: Any
) -> Event:
    fields = {"at": at, "level": level, "kind": kind, "text": text, "refs": refs}
    return Event.model_validate(fields)


def update(client: str = "client_0", **changed: Any) -> UpdateSummary:
    fields: dict[str, Any] = {
        "task_id": "t1",
        "client_id": client,
        "worker_id": "w1",
        "base_version": 0,
        "staleness": 0,
        "score": 2.0,
        "weight": 0.5,
        "staleness_factor": 1.0,
        "participation_factor": 1.0,
        "clip": 1.0,
        "coefficient": 0.5,
        "num_samples": 10,
        "num_tokens": 100,
        "steps": 5,
        "avg_loss": 2.0,
        "loss_before": 2.1,
        "loss_after": 1.9,
        "delta_norm": 1.0,
        "train_seconds": 1.0,
        "nbytes": 1000,
    }
    return UpdateSummary.model_validate({**fields, **changed})


def version(number: int, *updates: UpdateSummary, **changed: Any) -> VersionSummary:
    fields: dict[str, Any] = {
        "version": number,
        "phase": 0,
        "at": 1000.0 + 60 * number,
        "sha256": f"{number:x}".rjust(4, "0") * 16,
        "nbytes": 2048,
        "train_loss": 4.0 - number / 10,
        "updates": updates,
    }
    return VersionSummary.model_validate({**fields, **changed})


def client(name: str, site: str = "local", **changed: Any) -> ClientRow:
    fields: dict[str, Any] = {
        "client_id": name,
        "site": site,
        "rows": 10,
        "issued": 0,
        "participation": 0,
    }
    return ClientRow.model_validate({**fields, **changed})


def sample(number: int, asked: str = "What is it?", **changed: Any) -> SampleAnswer:
    fields: dict[str, Any] = {
        "version": number,
        "at": 1000.0 + 60 * number,
        "kind": "sft",
        "asked": asked,
        "expected": "It is a test.",
        "answer": f"Answer {number}.",
    }
    return SampleAnswer.model_validate({**fields, **changed})


def queue(name: str, messages: int = 0, consumers: int = 1) -> QueueRow:
    return QueueRow(queue=f"fccl.r.{name}", messages=messages, consumers=consumers)


def info(**changed: Any) -> RunInfo:
    fields: dict[str, Any] = {
        "run": "r",
        "name": "r",
        "status": "running",
        "detail": "1 of 1 clients served",
        "version": 1,
        "total_versions": 9,
        "phase": 0,
        "phases": ("sft",),
        "clients": 1,
        "buffered": 0,
        "buffer_size": 2,
        "open_tasks": 1,
        "accepted": 2,
        "rejected": 0,
        "started_at": 1000.0,
        "updated_at": 1000.0,
        "max_staleness": 20,
    }
    return RunInfo.model_validate({**fields, **changed})


def look(
    *,
    read_at: float = 1.0,
    clients: Sequence[ClientRow] = (),
    workers: Sequence[Heartbeat] = (),
    queues: Sequence[QueueRow] = (),
    versions: Sequence[VersionSummary] = (),
    events: Sequence[Event] = (),
    samples: Sequence[SampleAnswer] = (),
    **changed: Any,
) -> Snapshot:
    """A live look at a run of that kind."""
    view = FederationView(
        info=info(**changed),
        clients=tuple(clients),
        workers=tuple(workers),
        queues=tuple(queues),
        versions=tuple(versions),
        events=tuple(events),
        samples=tuple(samples),
    )
    return Snapshot("live", view, read_at=read_at, changed_at=read_at)
