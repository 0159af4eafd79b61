"""Where keys steer nothing: read-only, a run that is over, a store that is lost.

What they do to a run is in `test_steering.py`, with a real coordinator.
"""

from __future__ import annotations

import pytest
from textual.pilot import Pilot

from common.store.store import connect
from tests.support.servers import PrivateRedis, Server
from tests.support.tui.live_app import ordered, publish, screen, shows, watch
from tui.app import MonitorApp
from tui.screens.confirm import ConfirmScreen

pytestmark = pytest.mark.servers


def test_a_read_only_screen_offers_nothing_and_sends_nothing(
    redis_server: Server, run: str
) -> None:
    store = connect(redis_server.url)
    publish(store, run)

    async def script(pilot: Pilot[None], app: MonitorApp) -> None:
        await shows(pilot, "the run", lambda: "1 of 9" in screen(app))
        await pilot.press("p", "S", "D", "3", "k", "u", "r")
        await pilot.pause()
        assert not isinstance(app.screen, ConfirmScreen)
        assert store.commands(run) == []
        assert "pause" not in screen(app)
        assert not {"Pause", "Stop"} & {entry.name for entry in app.entries()}

    watch(redis_server.url, run, script, controls=False)


def test_a_run_that_is_over_takes_no_orders(redis_server: Server, run: str) -> None:
    store = connect(redis_server.url)
    publish(store, run, status="stopped")

    async def script(pilot: Pilot[None], app: MonitorApp) -> None:
        await shows(pilot, "the run", lambda: "1 of 9" in screen(app))
        await pilot.press("S")
        await shows(pilot, "the reason", lambda: "the run is over: no coord" in screen(app))
        assert store.commands(run) == []

    watch(redis_server.url, run, script)


def test_a_store_that_takes_no_orders_is_told(own_redis: PrivateRedis, run: str) -> None:
    publish(connect(own_redis.url), run)

    async def script(pilot: Pilot[None], app: MonitorApp) -> None:
        await shows(pilot, "the run", lambda: "1 of 9" in screen(app))
        own_redis.kill()
        await pilot.press("p")
        await shows(pilot, "it is told", lambda: "pause: not sent: " in ordered(app))

    watch(own_redis.url, run, script)
