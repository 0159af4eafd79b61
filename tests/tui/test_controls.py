"""Keys that steer the run: what arrives in the store, and what the screen says of it."""

from __future__ import annotations

import pytest
from textual.pilot import Pilot

from common.commands import Answer, Command
from common.store import Store, connect
from common.wire import pack, unpack
from tests.servers import PrivateRedis, Server
from tests.tui.stage import client, ordered, publish, put_clients, screen, shows, watch
from tui.app import Watch
from tui.widgets.confirm import Confirm

pytestmark = pytest.mark.servers


def asked(store: Store, run: str) -> list[Command]:
    """What a coordinator reads."""
    return [unpack(Command, frame)[0] for frame in store.commands(run)]


def sent(store: Store, run: str) -> list[tuple[str, str]]:
    """The same as action and target."""
    return [(command.action, command.target) for command in asked(store, run)]


def settle(store: Store, run: str, state: str, reason: str = "") -> None:
    """Answer the newest as a coordinator does."""
    command_id = asked(store, run)[-1].command_id
    fields = {"command_id": command_id, "state": state, "reason": reason}
    store.put_answer(run, command_id, pack(Answer.model_validate(fields)))


def test_a_pause_is_requested_until_it_is_answered(redis_server: Server, run: str) -> None:
    store = connect(redis_server.url)
    publish(store, run)

    async def script(pilot: Pilot[None], app: Watch) -> None:
        await shows(pilot, "the run", lambda: "1 of 9" in screen(app))
        await pilot.press("p")
        await shows(pilot, "the request", lambda: ordered(app).startswith("pause: requested"))
        await shows(pilot, "it is sent", lambda: sent(store, run) == [("pause", "")])
        settle(store, run, "done")
        await shows(pilot, "done", lambda: ordered(app) == "pause: done")
        await pilot.press("p")
        await shows(pilot, "it is sent", lambda: len(sent(store, run)) == 2)
        settle(store, run, "refused", "the run is over")
        await shows(pilot, "no", lambda: "pause: refused: the run is over" in ordered(app))

    watch(redis_server.url, run, script)


def test_what_ends_the_run_is_asked_first(redis_server: Server, run: str) -> None:
    store = connect(redis_server.url)
    publish(store, run)

    async def script(pilot: Pilot[None], app: Watch) -> None:
        await shows(pilot, "the run", lambda: "1 of 9" in screen(app))
        for key, action, no in (("S", "Stop", "enter"), ("D", "Drain", "escape")):
            await pilot.press(key)
            await shows(pilot, "it asks", lambda: isinstance(app.screen, Confirm))
            assert f"{action} run {run}?" in screen(app)
            await pilot.press(no)
            await shows(pilot, "it is over", lambda: not isinstance(app.screen, Confirm))
        assert sent(store, run) == []
        assert ordered(app) == ""
        await pilot.press("S", "y")
        await shows(pilot, "it is sent", lambda: sent(store, run) == [("stop", "")])
        await pilot.press("D", "y")
        await shows(pilot, "it is sent", lambda: ("drain", "") in sent(store, run))

    watch(redis_server.url, run, script)


def test_the_client_under_the_cursor_is_kicked_pardoned_and_its_task_reissued(
    redis_server: Server, run: str
) -> None:
    store = connect(redis_server.url)
    publish(store, run)
    put_clients(store, run, client(0), client(1, task_id="t7"))

    async def script(pilot: Pilot[None], app: Watch) -> None:
        await shows(pilot, "the run", lambda: "1 of 9" in screen(app))
        await pilot.press("k")
        assert not isinstance(app.screen, Confirm), "no client is selected here"
        await pilot.press("3")
        await shows(pilot, "the clients", lambda: "client_1" in screen(app))
        await pilot.press("r")
        await shows(pilot, "there is no task", lambda: "nothing to reissue" in screen(app))
        await pilot.press("down", "k")
        await shows(pilot, "it asks", lambda: f"Kick client client_1 of run {run}?" in screen(app))
        await pilot.press("y")
        expected = [("kick", "client_1")]
        await shows(pilot, "the kick", lambda: sent(store, run) == expected)
        await pilot.press("u")
        expected.append(("pardon", "client_1"))
        await shows(pilot, "the pardon", lambda: sent(store, run) == expected)
        await pilot.press("r")
        expected.append(("reissue", "t7"))
        await shows(pilot, "the reissue", lambda: sent(store, run) == expected)

    watch(redis_server.url, run, script)


def test_a_paused_run_is_resumed_and_the_palette_offers_the_controls(
    redis_server: Server, run: str
) -> None:
    store = connect(redis_server.url)
    publish(store, run)

    async def script(pilot: Pilot[None], app: Watch) -> None:
        await shows(pilot, "the run", lambda: "1 of 9" in screen(app))
        await pilot.press("ctrl+p", *"resume")
        await shows(pilot, "the entry", lambda: "Go on after a pause" in screen(app))
        await pilot.press("down", "enter")
        await shows(pilot, "it is sent", lambda: sent(store, run) == [("resume", "")])
        names = [entry.name for entry in app.entries()]
        assert "Theme" in names
        assert not any("creenshot" in name for name in names), "nothing that writes files"

    watch(redis_server.url, run, script)


def test_a_read_only_screen_offers_nothing_and_sends_nothing(
    redis_server: Server, run: str
) -> None:
    store = connect(redis_server.url)
    publish(store, run)

    async def script(pilot: Pilot[None], app: Watch) -> None:
        await shows(pilot, "the run", lambda: "1 of 9" in screen(app))
        await pilot.press("p", "S", "D", "3", "k", "u", "r")
        await pilot.pause()
        assert not isinstance(app.screen, Confirm)
        assert sent(store, run) == []
        assert "pause" not in screen(app)
        assert not {"Pause", "Stop"} & {entry.name for entry in app.entries()}

    watch(redis_server.url, run, script, controls=False)


def test_a_run_that_is_over_takes_no_orders(redis_server: Server, run: str) -> None:
    store = connect(redis_server.url)
    publish(store, run, status="stopped")

    async def script(pilot: Pilot[None], app: Watch) -> None:
        await shows(pilot, "the run", lambda: "1 of 9" in screen(app))
        await pilot.press("S")
        await shows(pilot, "the reason", lambda: "the run is over: no coord" in screen(app))
        assert sent(store, run) == []

    watch(redis_server.url, run, script)


def test_a_store_that_takes_no_orders_is_told(own_redis: PrivateRedis, run: str) -> None:
    publish(connect(own_redis.url), run)

    async def script(pilot: Pilot[None], app: Watch) -> None:
        await shows(pilot, "the run", lambda: "1 of 9" in screen(app))
        own_redis.kill()
        await pilot.press("p")
        await shows(pilot, "it is told", lambda: "pause: not sent: " in ordered(app))

    watch(own_redis.url, run, script)
