"""Commands that reach no coordinator: read-only, a run that is over, a lost store.

`test_commands.py` tests commands with a real coordinator.
"""

from __future__ import annotations

import pytest
from textual.pilot import Pilot

from common.store.store import connect
from tests.support.servers import PrivateRedis, Server
from tests.support.tui.live_app import command_text, publish, run_app
from tests.support.tui.pilot import screen_text, wait_until
from tui.app import MonitorApp
from tui.screens.confirm import ConfirmScreen

pytestmark = pytest.mark.servers


def test_a_read_only_screen_offers_and_sends_no_commands(redis_server: Server, run: str) -> None:
    store = connect(redis_server.url)
    publish(store, run)

    async def script(pilot: Pilot[None], app: MonitorApp) -> None:
        await wait_until(pilot, "the run", lambda: "1 of 9" in screen_text(app))
        await pilot.press("p", "S", "D", "3", "k", "u", "r")
        await pilot.pause()
        assert not isinstance(app.screen, ConfirmScreen)
        assert store.commands(run) == []
        assert "pause" not in screen_text(app)
        assert not {"Pause", "Stop"} & {entry.name for entry in app.palette_entries()}

    run_app(redis_server.url, run, script, read_only=True)


def test_a_run_that_is_over_gets_no_commands(redis_server: Server, run: str) -> None:
    store = connect(redis_server.url)
    publish(store, run, status="stopped")

    async def script(pilot: Pilot[None], app: MonitorApp) -> None:
        await wait_until(pilot, "the run", lambda: "1 of 9" in screen_text(app))
        await pilot.press("S")
        await wait_until(
            pilot,
            "the reason",
            lambda: "the run is over and has no coordinator" in screen_text(app),
        )
        assert store.commands(run) == []

    run_app(redis_server.url, run, script)


def test_a_command_that_the_store_does_not_take_is_reported(
    own_redis: PrivateRedis, run: str
) -> None:
    publish(connect(own_redis.url), run)

    async def script(pilot: Pilot[None], app: MonitorApp) -> None:
        await wait_until(pilot, "the run", lambda: "1 of 9" in screen_text(app))
        own_redis.kill()
        await pilot.press("p")
        await wait_until(pilot, "the report", lambda: "pause: not sent: " in command_text(app))

    run_app(own_redis.url, run, script)
