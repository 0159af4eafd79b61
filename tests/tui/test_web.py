"""The screen in a browser, as `fccl tui --web` serves it."""

from __future__ import annotations

import asyncio
import signal
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from cli.control.tui import choose_run
from common.store.store import connect
from tests.support.processes import LONG, Commands, commands
from tests.support.servers import Server, free_port
from tests.support.tui.live_app import publish

pytestmark = pytest.mark.servers


@pytest.fixture
def place(tmp_path: Path, redis_server: Server) -> Iterator[Commands]:
    # A name with characters special to a shell, because the server runs its command in one.
    directory = tmp_path / "it's $(here); really"
    directory.mkdir()
    with commands(directory, {"FCCL_STORE__URL": redis_server.url}) as place:
        yield place


async def read_until(port: int, text: bytes) -> None:
    """Read what a browser receives until it contains a text."""
    url = f"http://127.0.0.1:{port}"
    async with aiohttp.ClientSession() as session, asyncio.timeout(LONG):
        async with session.get(url) as page:
            assert page.status == 200
        async with session.ws_connect(f"{url}/ws?width=120&height=40") as socket:
            sent = b""
            async for message in socket:
                sent += message.data if isinstance(message.data, bytes) else b""
                if text in sent:
                    return
    raise AssertionError(sent[-2000:])


def test_a_browser_sees_the_run(place: Commands, redis_server: Server, tmp_path: Path) -> None:
    run = "r" + uuid.uuid4().hex[:30]
    config = tmp_path / "it's $(here); really" / "my run.toml"
    config.write_text(f'[run]\nname = "{run}"\n')
    publish(connect(redis_server.url), run)
    port = free_port()
    command = place.script("tui", "--web", "--port", str(port), "--config", config.name)
    command.says("Ctrl-C ends it")
    asyncio.run(read_until(port, b"version 1: fine"))
    command.signal(signal.SIGINT)
    assert command.end() == 0


def test_a_browser_can_control_the_run_only_with_the_option_for_it() -> None:
    assert "--read-only" in choose_run(None, None, None, None, controllable=False).command_line
    assert "--read-only" not in choose_run(None, None, None, None, controllable=True).command_line


def test_a_taken_port_is_one_line(place: Commands) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        command = place.script("tui", "--web", "--port", str(taken.getsockname()[1]))
        assert command.end() == 2
    assert len(command.err.splitlines()) == 1, command.err
    assert "choose another --port" in command.err
