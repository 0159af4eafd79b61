"""Commands by key and palette with a real coordinator: request, answer and effect.

One small run over RabbitMQ and Redis serves the whole module. Nothing is trained: a heartbeat that
does not expire stands for a worker, so that one task is issued and stays open. The tests follow the
course of the run, and the last one ends it.
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
from tests.support.tui.builders import heartbeat
from tests.support.tui.live_app import AppScript, banner_text, command_text, run_app
from tests.support.tui.pilot import screen_text, wait_until
from tui.app import PANES, MonitorApp
from tui.panes.clients import ClientsPane
from tui.screens.confirm import ConfirmScreen
from tui.widgets.live_table import LiveTable

pytestmark = pytest.mark.servers
NAME = "small"


@dataclass(frozen=True)
class LiveRun:
    """A run, its coordinator, and the store through which the app sees both."""

    run: Federation
    coordinator: Command
    store: str

    def run_app(self, script: AppScript) -> None:
        run_app(self.store, NAME, script)

    async def command(self, pilot: Pilot[None], app: MonitorApp, name: str, *keys: str) -> None:
        """Send a command while the coordinator is stopped, then let it answer."""
        self.coordinator.signal(signal.SIGSTOP)
        requested = f"{name}: requested"
        try:
            await pilot.press(*keys)
            await wait_until(pilot, requested, lambda: requested in command_text(app))
        finally:
            self.coordinator.signal(signal.SIGCONT)
        await wait_until(pilot, "the answer", lambda: requested not in command_text(app))


@pytest.fixture(scope="module")
def live(
    tmp_path_factory: pytest.TempPathFactory,
    model_cache: Path,
    rabbitmq: Server,
    redis_server: Server,
) -> Iterator[LiveRun]:
    directory = tmp_path_factory.mktemp("live")
    servers = (rabbitmq.url, redis_server.url)
    variables = {"FCCL_SAMPLES__PROMPTS": "1", "FCCL_SAMPLES__NEW_TOKENS": "4"}
    with federation(directory, model_cache, *servers) as run:
        coordinator = run.place.fork("coordinator", "--plain", **variables)
        eventually("it serves", lambda: run.epoch() == 1)
        store = connect(redis_server.url)
        store.put_heartbeat(run.run_id, heartbeat("w"))
        opened = "SELECT task_id, client_id FROM task WHERE open"
        task, client = eventually("a task is open", lambda: run.rows(opened))[0]
        beat = heartbeat("w", state="training", task_id=task, client_id=client, progress=0.5)
        store.put_heartbeat(run.run_id, beat)
        store.execute("PERSIST", f"fccl:{run.run_id}:heartbeat:local:w")
        yield LiveRun(run, coordinator, redis_server.url)


def view(app: MonitorApp) -> FederationView:
    shown = app.snapshot.view
    assert shown is not None
    return shown


def status(app: MonitorApp) -> str:
    """Return the status of the run once the overview shows it."""
    shown = app.snapshot.view
    status = shown.info.status if shown else ""
    return status if f" {status} " in screen_text(app) else ""


def tab(name: str) -> str:
    """Return the key of a pane."""
    return str(list(PANES).index(name) + 1)


def row(app: MonitorApp, name: str) -> ClientRow:
    return next(each for each in view(app).clients if each.client_id == name)


async def select_client(pilot: Pilot[None], app: MonitorApp, name: str) -> None:
    """Move the cursor to a client."""
    await pilot.press(tab("clients"))
    table = app.query_one(ClientsPane).query_one(LiveTable)
    await wait_until(pilot, "the clients", lambda: table.row_count == 3)
    await pilot.press("home", *["down"] * int(name[-1]))
    await wait_until(pilot, name, lambda: table.selected == name)


async def wait_for_question(pilot: Pilot[None], app: MonitorApp, question: str) -> None:

    def shown() -> bool:
        return isinstance(app.screen, ConfirmScreen) and app.screen.question == question

    await wait_until(pilot, question, shown)


async def use_palette(pilot: Pilot[None], words: str, line: str) -> None:
    """Type into the palette until it shows a line, and select it."""
    await pilot.press("ctrl+p", *words)
    await wait_until(pilot, line, lambda: line in screen_text(pilot.app))
    await pilot.press("down")


def test_the_answers_of_the_base_are_shown(live: LiveRun) -> None:
    async def script(pilot: Pilot[None], app: MonitorApp) -> None:
        await pilot.press(tab("samples"))
        await wait_until(
            pilot, "the base", lambda: "answers of the base and 0 versions" in screen_text(app)
        )
        [sample] = view(app).samples
        assert sample.version == 0
        assert sample.expected[:40] in screen_text(app)

    live.run_app(script)


def test_p_pauses_and_resumes_and_a_refused_command_is_reported(live: LiveRun) -> None:
    async def script(pilot: Pilot[None], app: MonitorApp) -> None:
        await wait_until(pilot, "it runs", lambda: status(app) == "running")
        await live.command(pilot, app, "pause", "p")
        assert command_text(app) == "pause: done"
        await wait_until(pilot, "paused", lambda: status(app) == "paused")
        await use_palette(pilot, "pause", "Issue no new tasks until")
        await live.command(pilot, app, "pause", "enter")
        await wait_until(
            pilot, "no", lambda: "pause: refused: the run is paused" in command_text(app)
        )
        await live.command(pilot, app, "resume", "p")
        await wait_until(pilot, "running", lambda: status(app) == "running")
        names = [entry.name for entry in app.palette_entries()]
        assert "Theme" in names
        assert not any("creenshot" in name for name in names), "no entry may write files"

    live.run_app(script)


def test_a_client_is_kicked_and_pardoned_and_its_task_is_reissued_after_questions(
    live: LiveRun,
) -> None:
    async def script(pilot: Pilot[None], app: MonitorApp) -> None:
        await wait_until(pilot, "it runs", lambda: status(app) == "running")
        await pilot.press("k")
        assert not isinstance(app.screen, ConfirmScreen), "no client is selected here"
        busy = next(each.client_id for each in view(app).clients if each.task_id)
        idle = next(each.client_id for each in view(app).clients if not each.task_id)

        await select_client(pilot, app, idle)
        await pilot.press("r")
        nothing = f"nothing to reissue: {idle} has no open task"
        await wait_until(pilot, nothing, lambda: nothing in screen_text(app))
        await pilot.press("k")
        await wait_for_question(pilot, app, f"Kick client {idle} in run {NAME}?")
        await live.command(pilot, app, f"kick {idle}", "y")
        await wait_until(pilot, "quarantined", lambda: row(app, idle).quarantined)
        await wait_until(pilot, "and shown", lambda: "✗ quarantined" in screen_text(app))
        await pilot.press("u")
        await wait_for_question(pilot, app, f"Pardon client {idle} in run {NAME}?")
        await live.command(pilot, app, f"pardon {idle}", "y")
        await wait_until(pilot, "pardoned", lambda: not row(app, idle).quarantined)
        await wait_until(pilot, "and shown", lambda: "✗ quarantined" not in screen_text(app))

        await select_client(pilot, app, busy)
        task = row(app, busy).task_id
        await pilot.press("r")
        await wait_for_question(pilot, app, f"Reissue task {task} of client {busy} in run {NAME}?")
        await live.command(pilot, app, f"reissue {task}", "y")
        again = f"task {task} of {busy} "
        await pilot.press(tab("log"))
        await wait_until(
            pilot, "issued again", lambda: f"{again}is issued again" in screen_text(app)
        )

    live.run_app(script)
    attempts = live.run.rows("SELECT MAX(attempt) FROM attempt")
    assert attempts == [(2,)]


def test_drain_and_stop_ask_first_and_then_end_the_run(live: LiveRun) -> None:
    async def script(pilot: Pilot[None], app: MonitorApp) -> None:
        await wait_until(pilot, "it runs", lambda: status(app) == "running")
        for key, action, no in (("S", "Stop", "enter"), ("D", "Drain", "escape")):
            await pilot.press(key)
            await wait_until(pilot, "it asks", lambda: isinstance(app.screen, ConfirmScreen))
            assert f"{action} run {NAME}?" in screen_text(app)
            await pilot.press(no)
            await wait_until(pilot, "it is over", lambda: not isinstance(app.screen, ConfirmScreen))
        assert command_text(app) == ""
        await pilot.press("D")
        await wait_until(pilot, "it asks", lambda: isinstance(app.screen, ConfirmScreen))
        await live.command(pilot, app, "drain", "y")
        await wait_until(pilot, "draining", lambda: status(app) == "draining")
        await use_palette(pilot, "stop", "End the run now; it can be resumed later")
        await pilot.press("enter")
        await wait_until(pilot, "it asks", lambda: f"Stop run {NAME}?" in screen_text(app))
        await live.command(pilot, app, "stop", "y")
        await wait_until(
            pilot, "the end", lambda: banner_text(app).startswith("the run is over, stopped")
        )

    live.run_app(script)
    assert live.coordinator.end() == 10
