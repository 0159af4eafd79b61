"""The app over a real Redis that holds a run as a coordinator writes it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from textual.pilot import Pilot
from textual.widgets import Static

from common.protocol.versions import VersionSummary
from common.protocol.wire import pack
from common.store.store import Store, connect
from common.store.view import ClientRow, RunInfo
from tests.support.tui.builders import client, event, info, version
from tui.app import MonitorApp
from tui.data.command_sender import CommandSender
from tui.data.reader import ReaderThread

AppScript = Callable[[Pilot[None], MonitorApp], Awaitable[None]]


def live_info(run: str, **changed: object) -> RunInfo:
    """Return the information of a run whose name and id are the same, written now."""
    ends = (changed.get("total_versions", 9),)
    return info(
        **{"run": run, "name": run, "phase_ends": ends, "updated_at": time.time(), **changed}
    )


def publish(store: Store, run: str, **changed: object) -> None:
    """Write a run with one client and one version; `changed` are fields of its `RunInfo`."""
    put_versions(store, run, version(1, at=1.0, train_loss=2.5))
    put_clients(store, run, client("client_0", rows=7, issued=1, participation=1))
    store.set_info(run, pack(live_info(run, **changed)))
    store.append_events(run, [event("version 1: fine", kind="version", at=1.0)])
    store.set_run(run, run)


def put_clients(store: Store, run: str, *rows: ClientRow) -> None:
    store.put_table(run, "clients", {row.client_id: pack(row) for row in rows})


def put_versions(store: Store, run: str, *versions: VersionSummary) -> None:
    for summary in versions:
        store.put_summaries(run, [(summary.version, summary.model_dump_json())])


def banner_text(app: MonitorApp) -> str:
    """Return the text of the top line."""
    return str(app.screen_stack[0].query_one("#banner", Static).content)


def command_text(app: MonitorApp) -> str:
    """Return the lines about sent commands."""
    return str(app.screen_stack[0].query_one("#commands", Static).content)


def run_app(
    url: str,
    run: str,
    script: AppScript,
    size: tuple[int, int] = (120, 35),
    read_only: bool = False,
) -> None:
    """Run a script against the app."""

    def open_store() -> Store:
        return connect(url, 1.0)

    async def drive() -> None:
        commands = None if read_only else CommandSender(open_store)
        app = MonitorApp(ReaderThread(open_store, run), commands)
        app.animation_level = "none"  # a pilot waits for every animation
        async with app.run_test(size=size, notifications=True) as pilot:
            await script(pilot, app)

    asyncio.run(drive())
