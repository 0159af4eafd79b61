"""The live screen over a real Redis, as its user meets it: keys in, text out."""

from __future__ import annotations

import pytest
from textual.pilot import Pilot

from common.protocol.wire import pack
from common.store.store import connect
from tests.support.servers import PrivateRedis, Server
from tests.support.tui.live_app import info, publish, said, screen, shows, watch
from tui.app import MonitorApp
from tui.screens.help import HelpScreen

pytestmark = pytest.mark.servers


def test_a_run_that_is_not_there_yet_is_waited_for(redis_server: Server, run: str) -> None:
    store = connect(redis_server.url)

    async def script(pilot: Pilot[None], app: MonitorApp) -> None:
        await shows(pilot, "waiting", lambda: said(app).startswith(f"waiting for run {run}:"))
        publish(store, run)
        await shows(pilot, "the run", lambda: "version 1: fine" in screen(app))
        assert "2.500" in screen(app)
        assert said(app) == ""

    watch(redis_server.url, run, script)


def test_what_the_coordinator_writes_appears_by_itself(redis_server: Server, run: str) -> None:
    store = connect(redis_server.url)
    publish(store, run)

    async def script(pilot: Pilot[None], app: MonitorApp) -> None:
        await shows(pilot, "version 1", lambda: "1 of 9" in screen(app))
        store.set_info(run, pack(info(run, version=2)))
        await shows(pilot, "version 2", lambda: "2 of 9" in screen(app))

    watch(redis_server.url, run, script)


@pytest.mark.parametrize("status", ["finished", "stopped", "failed"])
def test_the_end_of_a_run_is_told_with_its_reason(
    redis_server: Server, run: str, status: str
) -> None:
    publish(connect(redis_server.url), run, status=status, detail="that was all")

    async def script(pilot: Pilot[None], app: MonitorApp) -> None:
        await shows(pilot, status, lambda: said(app).endswith(f"{status}: that was all"))

    watch(redis_server.url, run, script)


def test_a_frozen_view_stays_until_space_lets_it_go_on(redis_server: Server, run: str) -> None:
    store = connect(redis_server.url)
    publish(store, run)

    async def script(pilot: Pilot[None], app: MonitorApp) -> None:
        await shows(pilot, "version 1", lambda: "1 of 9" in screen(app))
        await pilot.press("space")
        store.set_info(run, pack(info(run, version=2)))
        reader = app._source
        await shows(
            pilot, "it is read", lambda: (v := reader.latest().view) and v.info.version == 2
        )
        app._refresh()
        await pilot.pause()
        assert "1 of 9" in screen(app)
        assert "held still" in said(app)
        await pilot.press("space")
        await shows(pilot, "version 2", lambda: "2 of 9" in screen(app))
        assert said(app) == ""

    watch(redis_server.url, run, script)


def test_a_lost_store_leaves_the_last_view_with_its_age_and_comes_back(
    own_redis: PrivateRedis, run: str
) -> None:
    publish(connect(own_redis.url), run)

    async def script(pilot: Pilot[None], app: MonitorApp) -> None:
        await shows(pilot, "version 1", lambda: "1 of 9" in screen(app))
        own_redis.kill()
        await shows(pilot, "the loss", lambda: "what is shown is" in said(app))
        assert "does not answer" in said(app)
        await shows(pilot, "no health", lambda: "healthy   ✗ no" in screen(app))
        assert "1 of 9" in screen(app)
        own_redis.start()
        publish(connect(own_redis.url), run, version=3)
        await shows(pilot, "it is back", lambda: "3 of 9" in screen(app))
        assert said(app) == ""

    watch(own_redis.url, run, script)


def test_a_store_that_lost_the_run_is_told(own_redis: PrivateRedis, run: str) -> None:
    publish(connect(own_redis.url), run)

    async def script(pilot: Pilot[None], app: MonitorApp) -> None:
        await shows(pilot, "version 1", lambda: "1 of 9" in screen(app))
        own_redis.restart(wipe=True)
        await shows(pilot, "the loss", lambda: f"the store has lost run {run}" in said(app))
        assert "1 of 9" in screen(app)

    watch(own_redis.url, run, script)


def test_a_store_that_was_never_there_is_tried_again(own_redis: PrivateRedis, run: str) -> None:
    own_redis.kill()

    async def script(pilot: Pilot[None], app: MonitorApp) -> None:
        await shows(pilot, "no answer", lambda: "; trying again" in said(app))
        own_redis.start()
        await shows(pilot, "waiting", lambda: said(app).startswith(f"waiting for run {run}:"))

    watch(own_redis.url, run, script)


def test_help_says_what_the_keys_do_and_q_quits(redis_server: Server, run: str) -> None:
    async def script(pilot: Pilot[None], app: MonitorApp) -> None:
        await pilot.press("question_mark")
        assert isinstance(app.screen, HelpScreen)
        await pilot.press("q")
        assert not isinstance(app.screen, HelpScreen)
        assert app.is_running
        await pilot.press("q")
        await shows(pilot, "the end", lambda: app._exit)

    watch(redis_server.url, run, script)
