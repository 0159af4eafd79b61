"""What the tests of the live screen share: a run as a coordinator writes it, and a pilot."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from textual.pilot import Pilot
from textual.widgets import Static

from common.protocol.feed import Event
from common.protocol.heartbeat import Heartbeat
from common.protocol.versions import UpdateSummary, VersionSummary
from common.protocol.wire import pack
from common.store.store import Store, connect
from common.store.view import ClientRow, RunInfo
from tui.app import MonitorApp
from tui.data.command_sender import CommandSender
from tui.data.reader import ReaderThread

LONG = 20.0
"""Bounds a wait for something that must come; seconds."""

Script = Callable[[Pilot[None], MonitorApp], Awaitable[None]]


def info(run: str, **changed: object) -> RunInfo:
    fields: dict[str, object] = {
        "run": run,
        "name": run,
        "status": "running",
        "detail": "1 of 1 clients served",
        "version": 1,
        "total_versions": 9,
        "phase": 0,
        "phases": ("sft",),
        "phase_ends": (changed.get("total_versions", 9),),
        "clients": 1,
        "buffered": 0,
        "buffer_size": 2,
        "open_tasks": 1,
        "accepted": 2,
        "rejected": 0,
        "started_at": 1.0,
        "updated_at": time.time(),
        "max_staleness": 20,
    }
    return RunInfo.model_validate({**fields, **changed})


def publish(store: Store, run: str, **changed: object) -> None:
    """What a coordinator writes."""
    row = ClientRow(client_id="client_0", site="local", rows=7, issued=1, participation=1)
    summary = VersionSummary(version=1, phase=0, at=1.0, sha256="0" * 64, nbytes=1, train_loss=2.5)
    store.put_summary(run, 1, summary.model_dump_json())
    store.put_table(run, "clients", {"client_0": pack(row)})
    store.set_info(run, pack(info(run, **changed)))
    store.append_events(run, [Event(at=1.0, level="info", kind="version", text="version 1: fine")])
    store.set_run(run, run)


def client(number: int, **changed: object) -> ClientRow:
    fields: dict[str, object] = {
        "client_id": f"client_{number}",
        "site": "local",
        "rows": 7,
        "issued": 1,
        "participation": 1,
    }
    return ClientRow.model_validate({**fields, **changed})


def update(name: str, base: int = 0, **changed: object) -> UpdateSummary:
    fields: dict[str, object] = {
        "task_id": f"t-{name}-{base}",
        "client_id": name,
        "worker_id": "w",
        "base_version": base,
        "staleness": 0,
        "score": 1.0,
        "weight": 0.5,
        "staleness_factor": 1.0,
        "participation_factor": 1.0,
        "clip": 1.0,
        "coefficient": 0.5,
        "num_samples": 4,
        "num_tokens": 40,
        "steps": 2,
        "avg_loss": 2.0,
        "loss_before": 2.0,
        "loss_after": 1.0,
        "delta_norm": 0.1,
        "train_seconds": 1.0,
        "nbytes": 100,
    }
    return UpdateSummary.model_validate({**fields, **changed})


def version(number: int, *updates: UpdateSummary, **changed: object) -> VersionSummary:
    fields: dict[str, object] = {
        "version": number,
        "phase": 0,
        "at": float(number),
        "sha256": "0" * 64,
        "nbytes": 1000,
        "train_loss": 2.0,
        "holdout_before": 3.0,
        "updates": updates,
    }
    return VersionSummary.model_validate({**fields, **changed})


def heartbeat(worker: str, **changed: object) -> Heartbeat:
    fields: dict[str, object] = {
        "worker_id": worker,
        "site": "local",
        "state": "waiting",
        "clients": ("client_0",),
        "sent_at": time.time(),
    }
    return Heartbeat.model_validate({**fields, **changed})


def put_clients(store: Store, run: str, *rows: ClientRow) -> None:
    store.put_table(run, "clients", {row.client_id: pack(row) for row in rows})


def put_versions(store: Store, run: str, *versions: VersionSummary) -> None:
    for summary in versions:
        store.put_summary(run, summary.version, summary.model_dump_json())


def screen(app: MonitorApp) -> str:
    """What the terminal shows, as text: whatever lies on top included."""
    strips = app.screen._compositor.render_strips()
    return "\n".join("".join(segment.text for segment in strip) for strip in strips)


def said(app: MonitorApp) -> str:
    """The line on top."""
    return str(app.screen_stack[0].query_one("#banner", Static).content)


def ordered(app: MonitorApp) -> str:
    """What became of the orders."""
    return str(app.screen_stack[0].query_one("#orders", Static).content)


async def shows(pilot: Pilot[None], what: str, look: Callable[[], object]) -> None:
    deadline = time.monotonic() + LONG
    while not look():
        assert time.monotonic() < deadline, f"did not happen: {what}\n{screen(pilot.app)}"  # type: ignore[arg-type]
        await pilot.pause(0.02)


def watch(
    url: str,
    run: str,
    script: Script,
    size: tuple[int, int] = (120, 35),
    controls: bool = True,
) -> None:
    def connected() -> Store:
        return connect(url, 1.0)

    async def drive() -> None:
        app = MonitorApp(
            ReaderThread(connected, run), CommandSender(connected) if controls else None
        )
        app.animation_level = "none"  # a pilot waits for every animation
        async with app.run_test(size=size, notifications=True) as pilot:
            await script(pilot, app)

    asyncio.run(drive())
