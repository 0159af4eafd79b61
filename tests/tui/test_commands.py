"""Keys and palette against a real coordinator: each order requested, acknowledged, and its effect.

One small run over RabbitMQ and Redis for the whole module. Nobody trains: a heartbeat that stays
says that a worker is there, so that one task is issued, and stays open. The tests stand in the
order of the run: the last one ends it.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from textual.pilot import Pilot

from common.store.store import connect
from common.store.view import ClientRow, FederationView
from tests.support.federations import Federation, federation
from tests.support.processes import Command, eventually
from tests.support.servers import Server
from tests.support.tui.live_app import Script, heartbeat, ordered, said, screen, shows, watch
from tui.app import PANES, MonitorApp
from tui.panes.clients import ClientsPane
from tui.screens.confirm import ConfirmScreen
from tui.widgets.live_table import LiveTable

pytestmark = pytest.mark.servers
NAME = "small"


@dataclass(frozen=True)
class Steered:
    """A run, its coordinator, and the store through which both are seen."""

    run: Federation
    coordinator: Command
    store: str

    def watch(self, script: Script) -> None:
        watch(self.store, NAME, script)

    async def order(self, pilot: Pilot[None], app: MonitorApp, name: str, *keys: str) -> None:
        """Give an order while the coordinator is held, and let it answer."""
        self.coordinator.signal(signal.SIGSTOP)
        requested = f"{name}: requested"
        try:
            await pilot.press(*keys)
            await shows(pilot, requested, lambda: requested in ordered(app))
        finally:
            self.coordinator.signal(signal.SIGCONT)
        await shows(pilot, "the answer", lambda: requested not in ordered(app))


@pytest.fixture(scope="module")
def steered(
    tmp_path_factory: pytest.TempPathFactory,
    model_cache: Path,
    rabbitmq: Server,
    redis_server: Server,
) -> Iterator[Steered]:
    directory = tmp_path_factory.mktemp("steered")
    servers = (rabbitmq.url, redis_server.url)
    asks = {"FCCL_SAMPLES__PROMPTS": "1", "FCCL_SAMPLES__NEW_TOKENS": "4"}
    with federation(directory, model_cache, *servers) as run:
        coordinator = run.place.fork("coordinator", "--plain", **asks)
        eventually("it serves", lambda: run.epoch() == 1)
        store = connect(redis_server.url)
        store.put_heartbeat(run.run_id, heartbeat("w"))
        opened = "SELECT task_id, client_id FROM task WHERE open"
        task, client = eventually("a task is open", lambda: run.rows(opened))[0]
        beat = heartbeat("w", state="training", task_id=task, client_id=client, progress=0.5)
        store.put_heartbeat(run.run_id, beat)
        store.execute("PERSIST", f"fccl:{run.run_id}:heartbeat:local:w")
        yield Steered(run, coordinator, redis_server.url)


def view(app: MonitorApp) -> FederationView:
    found = app._source.latest().view
    assert found is not None
    return found


def status(app: MonitorApp) -> str:
    """As it stands on the overview, once that is what was read."""
    seen = app._source.latest().view
    found = seen.info.status if seen else ""
    return found if f" {found} " in screen(app) else ""


def tab(name: str) -> str:
    """The key of a pane."""
    return str(list(PANES).index(name) + 1)


def row(app: MonitorApp, name: str) -> ClientRow:
    return next(each for each in view(app).clients if each.client_id == name)


async def on_client(pilot: Pilot[None], app: MonitorApp, name: str) -> None:
    """Put the cursor on a client."""
    await pilot.press(tab("clients"))
    table = app.query_one(ClientsPane).query_one(LiveTable)
    await shows(pilot, "the clients", lambda: table.row_count == 3)
    await pilot.press("home", *["down"] * int(name[-1]))
    await shows(pilot, name, lambda: table.selected == name)


async def palette(pilot: Pilot[None], words: str, line: str) -> None:
    """Type into the palette until a line is there."""
    await pilot.press("ctrl+p", *words)
    await shows(pilot, line, lambda: line in screen(pilot.app))  # type: ignore[arg-type]
    await pilot.press("down")


def test_what_the_base_answers_is_shown(steered: Steered) -> None:
    async def script(pilot: Pilot[None], app: MonitorApp) -> None:
        await pilot.press(tab("samples"))
        await shows(pilot, "the base", lambda: "the base and 0 versions answered" in screen(app))
        [sample] = view(app).samples
        assert sample.version == 0
        assert sample.expected[:40] in screen(app)

    steered.watch(script)


def test_p_pauses_and_resumes_and_a_refusal_from_the_palette_is_told(steered: Steered) -> None:
    async def script(pilot: Pilot[None], app: MonitorApp) -> None:
        await shows(pilot, "it runs", lambda: status(app) == "running")
        await steered.order(pilot, app, "pause", "p")
        assert ordered(app) == "pause: done"
        await shows(pilot, "paused", lambda: status(app) == "paused")
        await palette(pilot, "pause", "No new tasks until it is resumed")
        await steered.order(pilot, app, "pause", "enter")
        await shows(pilot, "no", lambda: "pause: refused: the run is paused" in ordered(app))
        await steered.order(pilot, app, "resume", "p")
        await shows(pilot, "running", lambda: status(app) == "running")
        names = [entry.name for entry in app.entries()]
        assert "Theme" in names
        assert not any("creenshot" in name for name in names), "nothing that writes files"

    steered.watch(script)


def test_a_client_is_kicked_and_pardoned_and_its_task_is_reissued(steered: Steered) -> None:
    async def script(pilot: Pilot[None], app: MonitorApp) -> None:
        await shows(pilot, "it runs", lambda: status(app) == "running")
        await pilot.press("k")
        assert not isinstance(app.screen, ConfirmScreen), "no client is selected here"
        busy = next(each.client_id for each in view(app).clients if each.task_id)
        idle = next(each.client_id for each in view(app).clients if not each.task_id)

        await on_client(pilot, app, idle)
        await pilot.press("r")
        nothing = f"nothing to reissue: {idle} has no open task"
        await shows(pilot, nothing, lambda: nothing in screen(app))
        await pilot.press("k")
        question = f"Kick client {idle} of run {NAME}?"
        await shows(pilot, question, lambda: question in screen(app))
        await steered.order(pilot, app, f"kick {idle}", "y")
        await shows(pilot, "quarantined", lambda: row(app, idle).quarantined)
        await shows(pilot, "and shown", lambda: "✗ quarantined" in screen(app))
        await steered.order(pilot, app, f"pardon {idle}", "u")
        await shows(pilot, "pardoned", lambda: not row(app, idle).quarantined)
        await shows(pilot, "and shown", lambda: "✗ quarantined" not in screen(app))

        await on_client(pilot, app, busy)
        task = row(app, busy).task_id
        await steered.order(pilot, app, f"reissue {task}", "r")
        again = f"task {task} of {busy} "
        await pilot.press(tab("log"))
        await shows(pilot, "issued again", lambda: f"{again}is issued again" in screen(app))

    steered.watch(script)
    attempts = steered.run.rows("SELECT MAX(attempt) FROM attempt")
    assert attempts == [(2,)]


def test_what_ends_the_run_is_asked_first_and_then_done(steered: Steered) -> None:
    async def script(pilot: Pilot[None], app: MonitorApp) -> None:
        await shows(pilot, "it runs", lambda: status(app) == "running")
        for key, action, no in (("S", "Stop", "enter"), ("D", "Drain", "escape")):
            await pilot.press(key)
            await shows(pilot, "it asks", lambda: isinstance(app.screen, ConfirmScreen))
            assert f"{action} run {NAME}?" in screen(app)
            await pilot.press(no)
            await shows(pilot, "it is over", lambda: not isinstance(app.screen, ConfirmScreen))
        assert ordered(app) == ""
        await pilot.press("D")
        await shows(pilot, "it asks", lambda: isinstance(app.screen, ConfirmScreen))
        await steered.order(pilot, app, "drain", "y")
        await shows(pilot, "draining", lambda: status(app) == "draining")
        await palette(pilot, "stop", "End the run now; it can be resumed")
        await pilot.press("enter")
        await shows(pilot, "it asks", lambda: f"Stop run {NAME}?" in screen(app))
        await steered.order(pilot, app, "stop", "y")
        await shows(pilot, "the end", lambda: said(app).startswith("the run is over, stopped"))

    steered.watch(script)
    assert steered.coordinator.end() == 10
