"""The app over a real Redis, by its keys and the text on the screen."""

from __future__ import annotations

import pytest
from textual.pilot import Pilot

from common.protocol.wire import pack
from common.store.store import connect
from tests.support.servers import PrivateRedis, Server
from tests.support.tui.live_app import banner_text, live_info, publish, run_app
from tests.support.tui.pilot import screen_text, wait_until
from tui.app import REFRESH_S, MonitorApp
from tui.screens.help import HelpScreen

pytestmark = pytest.mark.servers


def test_the_app_waits_for_a_run_that_has_not_started(redis_server: Server, run: str) -> None:
    store = connect(redis_server.url)

    async def script(pilot: Pilot[None], app: MonitorApp) -> None:
        await wait_until(
            pilot, "waiting", lambda: banner_text(app).startswith(f"waiting for run {run}")
        )
        publish(store, run)
        await wait_until(pilot, "the run", lambda: "version 1: fine" in screen_text(app))
        assert "2.500" in screen_text(app)
        assert banner_text(app) == ""

    run_app(redis_server.url, run, script)


def test_new_versions_appear_without_a_key(redis_server: Server, run: str) -> None:
    store = connect(redis_server.url)
    publish(store, run)

    async def script(pilot: Pilot[None], app: MonitorApp) -> None:
        await wait_until(pilot, "version 1", lambda: "1 of 9" in screen_text(app))
        store.set_info(run, pack(live_info(run, version=2)))
        await wait_until(pilot, "version 2", lambda: "2 of 9" in screen_text(app))

    run_app(redis_server.url, run, script)


@pytest.mark.parametrize("status", ["finished", "stopped", "failed"])
def test_the_banner_gives_the_end_of_the_run_with_its_reason(
    redis_server: Server, run: str, status: str
) -> None:
    publish(connect(redis_server.url), run, status=status, detail="that was all")

    async def script(pilot: Pilot[None], app: MonitorApp) -> None:
        await wait_until(
            pilot, status, lambda: banner_text(app).endswith(f"{status}: that was all")
        )

    run_app(redis_server.url, run, script)


def test_a_frozen_view_stays_until_space_is_pressed_again(redis_server: Server, run: str) -> None:
    store = connect(redis_server.url)
    publish(store, run)

    async def script(pilot: Pilot[None], app: MonitorApp) -> None:
        await wait_until(pilot, "version 1", lambda: "1 of 9" in screen_text(app))
        await pilot.press("space")
        store.set_info(run, pack(live_info(run, version=2)))
        await pilot.pause(2 * REFRESH_S)  # nothing to wait for: the screen must not change
        assert "1 of 9" in screen_text(app)
        assert banner_text(app).startswith("frozen")
        await pilot.press("space")
        await wait_until(pilot, "version 2", lambda: "2 of 9" in screen_text(app))
        assert banner_text(app) == ""

    run_app(redis_server.url, run, script)


def test_a_lost_store_leaves_the_last_view_with_its_age_and_comes_back(
    own_redis: PrivateRedis, run: str
) -> None:
    publish(connect(own_redis.url), run)

    async def script(pilot: Pilot[None], app: MonitorApp) -> None:
        await wait_until(pilot, "version 1", lambda: "1 of 9" in screen_text(app))
        own_redis.kill()
        await wait_until(pilot, "the loss", lambda: app.snapshot.state == "lost")
        await wait_until(pilot, "the banner", lambda: app.query_one("#banner").has_class("error"))
        await wait_until(pilot, "no health", lambda: "healthy   ✗ no" in screen_text(app))
        assert "1 of 9" in screen_text(app)
        own_redis.start()
        publish(connect(own_redis.url), run, version=3)
        await wait_until(pilot, "it is back", lambda: "3 of 9" in screen_text(app))
        assert banner_text(app) == ""

    run_app(own_redis.url, run, script)


def test_a_run_missing_after_a_restart_of_the_store_is_reported(
    own_redis: PrivateRedis, run: str
) -> None:
    publish(connect(own_redis.url), run)

    async def script(pilot: Pilot[None], app: MonitorApp) -> None:
        await wait_until(pilot, "version 1", lambda: "1 of 9" in screen_text(app))
        own_redis.empty()
        own_redis.start()
        await wait_until(
            pilot, "the loss", lambda: f"the store has lost run {run}" in banner_text(app)
        )
        assert "1 of 9" in screen_text(app)

    run_app(own_redis.url, run, script)


def test_the_app_reconnects_to_a_store_that_starts_later(own_redis: PrivateRedis, run: str) -> None:
    own_redis.kill()

    async def script(pilot: Pilot[None], app: MonitorApp) -> None:
        await wait_until(pilot, "no answer", lambda: app.snapshot.state == "lost")
        own_redis.start()
        await wait_until(
            pilot, "waiting", lambda: banner_text(app).startswith(f"waiting for run {run}")
        )

    run_app(own_redis.url, run, script)


def test_question_mark_opens_the_help_and_q_quits(redis_server: Server, run: str) -> None:
    async def script(pilot: Pilot[None], app: MonitorApp) -> None:
        await pilot.press("question_mark")
        assert isinstance(app.screen, HelpScreen)
        await pilot.press("q")
        assert not isinstance(app.screen, HelpScreen)
        assert app.is_running
        await pilot.press("q")
        await wait_until(pilot, "the end", lambda: app._exit)

    run_app(redis_server.url, run, script)
