"""The panes, as their user meets them."""

from __future__ import annotations

import pytest
from textual.pilot import Pilot
from textual.widgets import Input

from common.store.store import Store, connect
from common.store.view import FederationView
from tests.support.servers import Server
from tests.support.tui.live_app import (
    client,
    heartbeat,
    info,
    publish,
    put_clients,
    put_versions,
    screen,
    shows,
    update,
    version,
    watch,
)
from tui.app import PANES, MonitorApp
from tui.data.reader import Snapshot
from tui.panes.clients import ClientsPane
from tui.screens.detail import DetailScreen
from tui.widgets.live_table import LiveTable
from tui.widgets.loss_curves import LossCurves

pytestmark = pytest.mark.servers


def run_of_two(store: Store, run: str) -> None:
    """Two clients, one busy, after three versions."""
    publish(store, run, version=3)
    put_clients(
        store,
        run,
        client(0, last_loss=2.5, weight=0.7, task_id="t7", base_version=3, staleness=0),
        client(1, last_loss=1.5, weight=0.3, quarantined=True),
    )
    put_versions(
        store, run, *(version(n, update("client_0"), update("client_1")) for n in (1, 2, 3))
    )
    store.put_heartbeat(
        run,
        heartbeat(
            "worker-a",
            state="training",
            task_id="t7",
            client_id="client_0",
            base_version=3,
            progress=0.5,
            tokens_per_s=1234.0,
        ),
    )


def test_every_number_and_every_click_opens_its_pane(redis_server: Server, run: str) -> None:
    run_of_two(connect(redis_server.url), run)

    async def script(pilot: Pilot[None], app: MonitorApp) -> None:
        await shows(pilot, "the run", lambda: "3 of 9" in screen(app))
        for number, name in enumerate(PANES, 1):
            await pilot.press(str(number))
            await shows(pilot, name, lambda name=name: app._tabs.active == name)  # type: ignore[misc]
        await pilot.press("2")
        await shows(pilot, "the worker", lambda: "worker-a" in screen(app))
        assert "1,234" in screen(app)
        assert "● training" in screen(app)
        assert "50%" in screen(app)
        await pilot.click("#--content-tab-overview")
        await shows(pilot, "the overview", lambda: "slowest clients" in screen(app))

    watch(redis_server.url, run, script)


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (200, 60)])
def test_the_overview_answers_at_every_size(
    redis_server: Server, run: str, size: tuple[int, int]
) -> None:
    run_of_two(connect(redis_server.url), run)

    async def script(pilot: Pilot[None], app: MonitorApp) -> None:
        for part in ("1 of 2 clients quarantined", "3 of 9", "▶ sft", "holdout before", "fine"):
            await shows(pilot, part, lambda part=part: part in screen(app))  # type: ignore[misc]
        assert app.query_one(LossCurves).plotted is (size != (80, 24))
        assert max(len(line) for line in screen(app).splitlines()) <= size[0]

    watch(redis_server.url, run, script, size)


def test_clients_can_be_sorted_filtered_and_looked_into(redis_server: Server, run: str) -> None:
    run_of_two(connect(redis_server.url), run)

    async def script(pilot: Pilot[None], app: MonitorApp) -> None:
        await pilot.press("3")
        await shows(pilot, "the clients", lambda: "✗ quarantined" in screen(app))
        table = app.query_one(ClientsPane).query_one(LiveTable)
        assert table.selected == "client_0"
        await pilot.press("down")
        await shows(pilot, "the second", lambda: table.selected == "client_1")
        table.sort_by("loss")  # numbers begin with the largest
        table.sort_by("loss")
        await pilot.pause()
        assert (table.cursor, table.selected) == (0, "client_1"), "the cursor keeps its row"
        await pilot.press("s")
        assert table.sorting == "weight ↓"
        await pilot.click("#clients LiveTable", offset=(3, 0))
        await shows(pilot, "the header", lambda: table.sorting == "client ↑")
        table.sort_by("weight")
        await pilot.press("slash", *"quar")
        await shows(pilot, "one row", lambda: table.row_count == 1)
        assert "1 of 2 clients, by weight ↓, with 'quar'" in screen(app)
        await pilot.press("enter", "enter")
        await shows(pilot, "its history", lambda: isinstance(app.screen, DetailScreen))
        await shows(pilot, "its updates", lambda: "3 updates applied" in screen(app))
        await pilot.press("escape", "escape")
        await shows(pilot, "all rows", lambda: table.row_count == 2)
        assert not app.query_one(ClientsPane).query_one(Input).display

    watch(redis_server.url, run, script)


def test_a_thousand_clients_cost_little_and_the_cursor_stays(
    redis_server: Server, run: str
) -> None:
    def view(number: int, loss: float) -> FederationView:
        rows = (client(n, last_loss=loss if n < 10 else 2.0) for n in range(number))
        return FederationView(info(run), tuple(rows), (), (), (), ())

    async def script(pilot: Pilot[None], app: MonitorApp) -> None:
        await pilot.press("3", "space")  # held still: the test shows what it wants
        await pilot.pause()
        pane = app.query_one(ClientsPane)
        table = pane.query_one(LiveTable)
        pane.show(Snapshot("live", view(1000, 2.0)))
        table.cursor = 500
        await pilot.pause()
        chosen = table.selected
        before = pane.rows(Snapshot("live", view(1000, 2.0)))
        after = pane.rows(Snapshot("live", view(1000, 1.0)))
        made = {name for name, cells in after.items() if cells is not before[name]}
        assert made == {f"client_{n}" for n in range(10)}, "only rows that changed are made again"
        pane.show(Snapshot("live", view(1000, 1.0)))
        table.sort_by("loss")
        assert table.cursor != 500
        assert table.selected == chosen
        pane.show(Snapshot("live", view(999, 1.0)))  # one leaves
        assert table.selected == chosen
        pane.show(Snapshot("live", view(5, 1.0)))  # and most
        assert table.row_count == 5

    watch(redis_server.url, run, script)
