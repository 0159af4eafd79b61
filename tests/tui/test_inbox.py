"""The inbox pane: what clients learn from live input."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Static

from common.protocol.heartbeat import InboxFigures
from common.store.store import connect
from tests.support.servers import Server
from tests.support.tui.live_app import heartbeat, publish, shows, watch
from tests.support.tui.live_app import screen as terminal
from tests.support.tui.views import Host, drive, look, screen, until
from tui import app as app_module
from tui.app import PANES, MonitorApp
from tui.panes.inbox import InboxPane, about
from tui.screens.detail import DetailScreen
from tui.widgets.live_table import LiveTable

KEY = str(list(PANES).index("inbox") + 1)


def row(client: str = "client_0", **changed: Any) -> InboxFigures:
    counts = {"waiting": 4, "learned": 30, "settled": 250, "rejected": 7}
    return InboxFigures.model_validate({"client_id": client, **counts, **changed})


ACCEPTED = row(
    verdict="accepted", at=1950.0, new_before=0.93, new_after=0.41, anchor_before=0.3,
    anchor_after=0.302, forgetting=0.012, backward_transfer=-0.01,
)  # fmt: skip
REJECTED = row(
    "client_1", waiting=0, verdict="rejected", at=1000.0, new_before=0.2, new_after=0.9,
    anchor_before=0.3, anchor_after=0.6, reason="it forgets: anchor loss 0.300 to 0.600",
)  # fmt: skip


class Styled(Host):
    """A list looks as in the app only with its styles."""

    CSS_PATH = Path(app_module.__file__).with_name("app.tcss")


@pytest.mark.parametrize("size", [(80, 24), (120, 36), (200, 50)])
def test_counts_verdicts_and_losses_are_there_at_every_size(size: tuple[int, int]) -> None:
    host = Styled(InboxPane())

    async def script(pilot: Pilot[None]) -> None:
        host.pane.show(look(workers=[heartbeat("w", inbox=(ACCEPTED, REJECTED))]))
        await until(pilot, "totals", lambda: "2 clients: 4 waiting, 60 learned" in screen(host))
        lines = screen(host).splitlines()
        first = next(line for line in lines if line.strip().startswith("client_0 "))
        cells = ["client_0", "✓", "accepted", "4", "30", "250", "7", "0.930", "→", "0.410"]
        assert first.split()[:10] == cells
        await pilot.press("down")  # all of a row that does not fit is below
        await until(pilot, "the reason", lambda: "it forgets: anchor loss" in told(host))
        assert told(host).endswith("loss on new items 0.200 → 0.900, on anchors 0.300 → 0.600")
        assert ("anchors" in "".join(lines[:4])) == (size != (80, 24))

    drive(host, script, size)


def told(host: Host) -> str:
    return str(host.query_one("#verdict", Static).content)


def test_a_client_that_has_learned_nothing_yet_says_so() -> None:
    assert about(row(), 2000.0) == "live input: nothing was learned yet"
    assert about(row(verdict="accepted", at=1940.0), 2000.0) == "last live input accepted 60 s ago"


@pytest.mark.servers
def test_the_pane_of_a_run(redis_server: Server, run: str) -> None:
    store = connect(redis_server.url)
    publish(store, run)
    now = time.time()

    def beat(loss: float, at: float) -> None:
        later = ACCEPTED.model_copy(update={"new_after": loss, "at": now + at})
        store.put_heartbeat(run, heartbeat("w", inbox=(later, REJECTED)))

    async def script(pilot: Pilot[None], app: MonitorApp) -> None:
        assert "Inbox" in [entry.name for entry in app.entries()]
        await pilot.press(KEY)
        await shows(pilot, "how to begin", lambda: "`fccl learn` tells the client" in terminal(app))
        await pilot.press("1")  # what comes while another pane is open is remembered
        for at, loss in enumerate((0.4, 0.8, 0.1)):
            beat(loss, at)
            await shows(pilot, f"{loss}", lambda at=at: seen(app) == at + 1)  # type: ignore[misc]
        await pilot.press(KEY)
        await shows(pilot, "three batches", lambda: "▄█▁" in terminal(app))
        table = app.query_one(InboxPane).query_one(LiveTable)
        table.sort_by("rejected")
        await pilot.press("s")
        assert table.sorting == "new items ↓"
        await shows(pilot, "the order", lambda: table.selected == "client_0")
        table.cursor = 0
        await shows(pilot, "the worst", lambda: table.selected == "client_1")
        await pilot.press("enter")
        await shows(pilot, "its detail", lambda: isinstance(app.screen, DetailScreen))
        await shows(pilot, "its verdict", lambda: "it forgets: anchor loss" in terminal(app))

    def seen(app: MonitorApp) -> int:
        past = app._source.latest().inbox.get("client_0")
        return 0 if past is None else len(past.losses)

    watch(redis_server.url, run, script, (200, 50))
