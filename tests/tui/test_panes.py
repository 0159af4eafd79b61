"""Panes of the app over a real Redis: overview, workers, clients, and the details of a row."""

from __future__ import annotations

import pytest
from textual.pilot import Pilot
from textual.widgets import Input, TabbedContent

from common.config.config import PrivacyConfig
from common.privacy import NOT_COVERED, spending_of
from common.store.store import Store, connect
from common.store.view import FederationView
from tests.support.servers import Server
from tests.support.tui.builders import client, heartbeat, info, update, version
from tests.support.tui.live_app import publish, put_clients, put_versions, run_app
from tests.support.tui.pilot import screen_text, wait_until
from tui.app import PANES, MonitorApp
from tui.data.reader import Snapshot
from tui.panes.clients import ClientsPane
from tui.screens.detail import DetailScreen
from tui.widgets.live_table import LiveTable
from tui.widgets.loss_curves import LossCurves

pytestmark = pytest.mark.servers


SPENT = {"load": 0.5, "measure": 2.0}


def run_of_two(store: Store, run: str) -> None:
    """Publish two clients, one of them busy, after three versions."""
    publish(store, run, version=3)
    put_clients(
        store,
        run,
        client("client_0", last_loss=2.5, weight=0.7, task_id="t7", base_version=3, staleness=0),
        client("client_1", last_loss=1.5, weight=0.3, quarantined=True),
    )
    put_versions(
        store,
        run,
        *(
            version(n, update("client_0"), update("client_1", seconds=SPENT), holdout_before=3.0)
            for n in (1, 2, 3)
        ),
    )
    put_worker(store, run)


def put_worker(store: Store, run: str) -> None:
    """Write the heartbeat of the busy worker, which the store forgets after a while."""
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
    store = connect(redis_server.url)
    run_of_two(store, run)

    def shows_worker(app: MonitorApp) -> bool:
        put_worker(store, run)  # the panes before may have taken longer than it lives
        return "worker-a" in screen_text(app)

    async def script(pilot: Pilot[None], app: MonitorApp) -> None:
        await wait_until(pilot, "the run", lambda: "3 of 9" in screen_text(app))
        for number, name in enumerate(PANES, 1):
            await pilot.press(str(number))
            await wait_until(
                pilot, name, lambda name=name: app.query_one(TabbedContent).active == name
            )
        await pilot.press("2")
        await wait_until(pilot, "the worker", lambda: shows_worker(app))
        assert "1,234" in screen_text(app)
        assert "● training" in screen_text(app)
        assert "50%" in screen_text(app)
        await pilot.click("#--content-tab-overview")
        await wait_until(pilot, "the overview", lambda: "slowest clients" in screen_text(app))

    run_app(redis_server.url, run, script)


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (200, 60)])
def test_the_overview_answers_its_questions_at_every_size(
    redis_server: Server, run: str, size: tuple[int, int]
) -> None:
    run_of_two(connect(redis_server.url), run)

    async def script(pilot: Pilot[None], app: MonitorApp) -> None:
        for part in ("1 of 2 clients quarantined", "3 of 9", "▶ sft", "holdout before", "fine"):
            await wait_until(pilot, part, lambda part=part: part in screen_text(app))
        assert app.query_one(LossCurves).plotted is (size != (80, 24))
        assert max(len(line) for line in screen_text(app).splitlines()) <= size[0]

    run_app(redis_server.url, run, script, size)


def test_the_overview_shows_what_was_spent_of_the_clients_privacy(
    redis_server: Server, run: str
) -> None:
    settings = PrivacyConfig(clip_norm=0.5, noise_multiplier=2.0, max_versions=8)
    publish(connect(redis_server.url), run, privacy=spending_of(settings, 2, 30))

    async def script(pilot: Pilot[None], app: MonitorApp) -> None:
        for part in ("ε ≤ 2.94 now, 6.57 at the end", NOT_COVERED):
            await wait_until(pilot, part, lambda part=part: part in screen_text(app))

    run_app(redis_server.url, run, script, (80, 24))


def test_clients_can_be_sorted_filtered_and_opened(redis_server: Server, run: str) -> None:
    run_of_two(connect(redis_server.url), run)

    async def script(pilot: Pilot[None], app: MonitorApp) -> None:
        await pilot.press("3")
        await wait_until(pilot, "the clients", lambda: "✗ quarantined" in screen_text(app))
        table = app.query_one(ClientsPane).query_one(LiveTable)
        assert table.selected == "client_0"
        await pilot.press("down")
        await wait_until(pilot, "the second", lambda: table.selected == "client_1")
        table.sort_by("loss")  # numbers begin with the largest
        table.sort_by("loss")
        await pilot.pause()
        assert (table.cursor, table.selected) == (0, "client_1"), "the cursor keeps its row"
        await pilot.press("s")
        assert table.sort_title == "weight ↓"
        await pilot.click("#clients LiveTable", offset=(3, 0))
        await wait_until(pilot, "the header", lambda: table.sort_title == "client ↑")
        table.sort_by("weight")
        await pilot.press("slash", *"quar")
        await wait_until(pilot, "one row", lambda: table.row_count == 1)
        assert "1 of 2 clients, by weight ↓, with 'quar'" in screen_text(app)
        await pilot.press("enter", "enter")
        await wait_until(pilot, "its history", lambda: isinstance(app.screen, DetailScreen))
        await wait_until(pilot, "its updates", lambda: "3 updates applied" in screen_text(app))
        assert "last update: training 1.0 s, load 0.5, measure 2.0" in screen_text(app)
        await pilot.press("escape", "escape")
        await wait_until(pilot, "all rows", lambda: table.row_count == 2)
        assert not app.query_one(ClientsPane).query_one(Input).display

    run_app(redis_server.url, run, script)


def test_of_a_thousand_clients_only_changed_rows_are_built_again_and_the_cursor_stays(
    redis_server: Server, run: str
) -> None:
    def view(number: int, loss: float) -> FederationView:
        rows = (client(f"client_{n}", last_loss=loss if n < 10 else 2.0) for n in range(number))
        return FederationView(info(name=run), tuple(rows), (), (), (), ())

    async def script(pilot: Pilot[None], app: MonitorApp) -> None:
        await pilot.press("3", "space")  # frozen: the test shows its own snapshots
        await pilot.pause()
        pane = app.query_one(ClientsPane)
        table = pane.query_one(LiveTable)
        pane.show(Snapshot("live", view(1000, 2.0)))
        table.cursor = 500
        await pilot.pause()
        chosen = table.selected
        before = pane.rows(Snapshot("live", view(1000, 2.0)))
        after = pane.rows(Snapshot("live", view(1000, 1.0)))
        rebuilt = {name for name, cells in after.items() if cells is not before[name]}
        assert rebuilt == {f"client_{n}" for n in range(10)}, "only changed rows are built again"
        pane.show(Snapshot("live", view(1000, 1.0)))
        table.sort_by("loss")
        assert table.cursor != 500
        assert table.selected == chosen
        pane.show(Snapshot("live", view(999, 1.0)))  # one leaves
        assert table.selected == chosen
        pane.show(Snapshot("live", view(5, 1.0)))  # and most
        assert table.row_count == 5

    run_app(redis_server.url, run, script)
