"""Inbox pane: what clients learn from live input."""

from __future__ import annotations

import time

import pytest
from textual.pilot import Pilot
from textual.widgets import Static

from common.store.store import connect
from tests.support.servers import Server
from tests.support.tui.builders import (
    ACCEPTED_BATCH,
    REJECTED_BATCH,
    heartbeat,
    inbox_row,
    snapshot,
)
from tests.support.tui.live_app import publish, run_app
from tests.support.tui.pilot import PaneApp, StyledPaneApp, run_pane, screen_text, wait_until
from tui.app import PANES, MonitorApp
from tui.panes.inbox import InboxPane, describe_last_batch
from tui.screens.detail import DetailScreen
from tui.widgets.live_table import LiveTable

KEY = str(list(PANES).index("inbox") + 1)


@pytest.mark.parametrize("size", [(80, 24), (120, 36), (200, 50)])
def test_counts_verdicts_and_losses_are_shown_at_every_size(size: tuple[int, int]) -> None:
    app = StyledPaneApp(InboxPane())

    async def script(pilot: Pilot[None]) -> None:
        app.pane.show(snapshot(workers=[heartbeat("w", inbox=(ACCEPTED_BATCH, REJECTED_BATCH))]))
        await wait_until(
            pilot, "totals", lambda: "2 clients: 4 waiting, 60 learned" in screen_text(app)
        )
        lines = screen_text(app).splitlines()
        first = next(line for line in lines if line.strip().startswith("client_0 "))
        cells = ["client_0", "✓", "accepted", "4", "30", "250", "7", "0.930", "→", "0.410"]
        assert first.split()[:10] == cells
        await pilot.press("down")  # the whole row is below the table
        await wait_until(
            pilot, "the reason", lambda: "it forgets: anchor loss" in selected_text(app)
        )
        assert selected_text(app).endswith(
            "loss on new items 0.200 → 0.900, on anchors 0.300 → 0.600"
        )
        assert ("anchors" in "".join(lines[:4])) == (size != (80, 24))

    run_pane(app, script, size)


def selected_text(app: PaneApp) -> str:
    return str(app.query_one("#verdict", Static).content)


def test_a_client_without_a_batch_has_learned_nothing() -> None:
    assert describe_last_batch(inbox_row(), 2000.0) == "live input: nothing learned yet"
    assert (
        describe_last_batch(inbox_row(verdict="accepted", at=1940.0), 2000.0)
        == "last live input accepted 60 s ago"
    )


@pytest.mark.servers
def test_the_pane_remembers_batches_that_arrive_while_another_pane_is_open(
    redis_server: Server, run: str
) -> None:
    store = connect(redis_server.url)
    publish(store, run)
    now = time.time()

    def beat(loss: float, at: float) -> None:
        later = ACCEPTED_BATCH.model_copy(update={"new_after": loss, "at": now + at})
        store.put_heartbeat(run, heartbeat("w", inbox=(later, REJECTED_BATCH)))

    async def script(pilot: Pilot[None], app: MonitorApp) -> None:
        assert "Inbox" in [entry.name for entry in app.palette_entries()]
        await pilot.press(KEY)
        await wait_until(
            pilot, "how to begin", lambda: "`fccl learn` teaches the client" in screen_text(app)
        )
        await pilot.press("1")  # batches count while another pane is open
        for at, loss in enumerate((0.4, 0.8, 0.1)):
            beat(loss, at)
            await wait_until(pilot, f"{loss}", lambda at=at: seen(app) == at + 1)  # type: ignore[misc]
        await pilot.press(KEY)
        await wait_until(pilot, "three batches", lambda: "▄█▁" in screen_text(app))
        table = app.query_one(InboxPane).query_one(LiveTable)
        table.sort_by("rejected")
        await pilot.press("s")
        assert table.sort_title == "new items ↓"
        await wait_until(pilot, "the order", lambda: table.selected == "client_0")
        table.cursor = 0
        await wait_until(pilot, "the worst", lambda: table.selected == "client_1")
        await pilot.press("enter")
        await wait_until(pilot, "its detail", lambda: isinstance(app.screen, DetailScreen))
        await wait_until(
            pilot, "its verdict", lambda: "it forgets: anchor loss" in screen_text(app)
        )

    def seen(app: MonitorApp) -> int:
        past = app.snapshot.inbox.get("client_0")
        return 0 if past is None else len(past.losses)

    run_app(redis_server.url, run, script, (200, 50))
