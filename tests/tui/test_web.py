"""The screen in a browser, as `fccl tui --web` serves it."""

from __future__ import annotations

import asyncio
import re
import signal
import socket
import uuid
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from click.testing import CliRunner

from cli.control import tui
from cli.control.tui import choose_run
from cli.control.web_server import MAX_SCREENS, WebServer, needs_secret
from common.errors import ConfigError
from common.store.store import connect
from tests.support.processes import LONG, Commands, commands
from tests.support.servers import Server, free_port
from tests.support.tui.live_app import publish

SCREEN = "printf '__GANGLION__\\n'; head -c 1 > /dev/null"
"""A command that starts like a screen, and ends when it is told to."""


@pytest.fixture
def place(tmp_path: Path, redis_server: Server) -> Iterator[Commands]:
    # A name with characters special to a shell, because the server runs its command in one.
    directory = tmp_path / "it's $(here); really"
    directory.mkdir()
    with commands(directory, {"FCCL_STORE__URL": redis_server.url}) as place:
        yield place


async def read_until(url: str, text: bytes) -> None:
    """Read what a browser receives until it contains a text."""
    origin = "/".join(url.split("/")[:3])
    async with aiohttp.ClientSession() as session, asyncio.timeout(LONG):
        async with session.get(url) as page:
            assert page.status == 200
        screen = session.ws_connect(f"{url}ws?width=120&height=40", origin=origin)
        async with screen as socket:
            sent = b""
            async for message in socket:
                sent += message.data if isinstance(message.data, bytes) else b""
                if text in sent:
                    return
    raise AssertionError(sent[-2000:])


@pytest.mark.servers
def test_a_browser_sees_the_run(place: Commands, redis_server: Server, tmp_path: Path) -> None:
    run = "r" + uuid.uuid4().hex[:30]
    config = tmp_path / "it's $(here); really" / "my run.toml"
    config.write_text(f'[run]\nname = "{run}"\n')
    publish(connect(redis_server.url), run)
    port = str(free_port())
    command = place.script("tui", "--web", "--controls", "--port", port, "--config", config.name)
    command.says("keep it secret")
    (url,) = re.findall(r"http://\S+/", command.out)
    assert re.fullmatch(rf"http://127\.0\.0\.1:{port}/[\w-]{{32}}/", url)
    asyncio.run(read_until(url, b"version 1: fine"))
    command.signal(signal.SIGINT)
    assert command.end() == 0


def test_a_browser_can_control_the_run_only_with_the_option_for_it() -> None:
    assert "--read-only" in choose_run(None, None, None, None, controllable=False).command_line
    assert "--read-only" not in choose_run(None, None, None, None, controllable=True).command_line


@pytest.mark.servers
def test_a_taken_port_is_one_line(place: Commands) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        command = place.script("tui", "--web", "--port", str(taken.getsockname()[1]))
        assert command.end() == 2
    assert len(command.err.splitlines()) == 1, command.err
    assert "choose another --port" in command.err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--host", "0.0.0.0"], "give --public-url"),
        (["--public-url", "http://u:word@h"], "--public-url has a user or password"),
    ],
)
def test_an_address_that_no_browser_can_open_is_refused(options: list[str], words: str) -> None:
    result = CliRunner().invoke(tui.command, ["--web", *options])
    assert isinstance(result.exception, ConfigError)
    assert words in str(result.exception)


@pytest.mark.parametrize(
    ("host", "public_url", "controllable", "secret"),
    [
        ("127.0.0.1", None, False, False),
        ("::1", "http://localhost:9000", False, False),
        ("127.0.0.1", None, True, True),
        ("10.0.0.5", None, False, True),
        ("0.0.0.0", "http://127.0.0.1:8000", False, True),
        ("127.0.0.1", "https://fccl.example.org", False, True),
    ],
)
def test_the_url_has_a_secret_where_others_could_do_harm(
    host: str, public_url: str | None, controllable: bool, secret: bool
) -> None:
    assert needs_secret(host, public_url, controllable) is secret


def served(
    secret: str, public_url: str | None, use: Callable[[str, WebServer], Awaitable[None]]
) -> None:
    """Serve screens on a free port of loopback while `use` runs."""

    async def run() -> None:
        port = free_port()
        server = WebServer(SCREEN, "demo", "127.0.0.1", port, public_url, secret)
        runner = web.AppRunner(await server._make_app())
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        try:
            await use(f"http://127.0.0.1:{port}", server)
        finally:
            await runner.cleanup()

    asyncio.run(run())


async def status(
    session: aiohttp.ClientSession, url: str, host: str | None = None, origin: str | None = None
) -> int:
    headers = {"Host": host} if host else {}
    headers |= {"Origin": origin} if origin else {}
    async with session.get(url, headers=headers) as response:
        return response.status


def test_a_request_of_another_page_or_for_another_name_is_refused() -> None:
    async def use(url: str, server: WebServer) -> None:
        async with aiohttp.ClientSession() as session:
            port = url.rpartition(":")[2]
            assert await status(session, f"{url}/") == 200
            assert await status(session, f"{url}/", f"LOCALHOST:{port}") == 200
            assert await status(session, f"{url}/", "fccl.example.org") == 200
            assert await status(session, f"{url}/", origin=f"http://localhost:{port}") == 200
            assert await status(session, f"{url}/", origin="https://fccl.example.org") == 200
            for host in ("evil.example", f"evil.example:{port}", "127.0.0.1.evil.example"):
                assert await status(session, f"{url}/", host) == 403
            for origin in ("http://evil.example", "null", "http://127.0.0.1:1", f"https{url[4:]}"):
                assert await status(session, f"{url}/", origin=origin) == 403
                with pytest.raises(aiohttp.WSServerHandshakeError):
                    await session.ws_connect(f"{url}/ws", origin=origin)
            with pytest.raises(aiohttp.WSServerHandshakeError):  # no browser leaves it out
                await session.ws_connect(f"{url}/ws")
            with pytest.raises(aiohttp.WSServerHandshakeError):
                await session.ws_connect(f"{url}/ws?width=1e9", origin=url)
        assert server.screens == 0

    served("", "https://fccl.example.org", use)


def test_a_url_without_its_secret_opens_nothing() -> None:
    async def use(url: str, server: WebServer) -> None:
        async with aiohttp.ClientSession() as session:
            for path in ("/", "/ws", "/static/js/textual.js", "/s3cre/", "/s3cretx/ws"):
                assert await status(session, url + path, origin=url) == 403
            async with session.get(f"{url}/s3cret/") as page:
                assert page.headers["Referrer-Policy"] == "no-referrer"
                assert f"ws://{url[7:]}/s3cret/ws" in await page.text()
            assert await status(session, f"{url}/s3cret/static/js/textual.js") == 200
        assert server.address == f"{url}/s3cret/"

    served("s3cret", None, use)


def test_the_number_of_screens_is_limited() -> None:
    async def use(url: str, server: WebServer) -> None:
        async with aiohttp.ClientSession() as session:
            screens = [
                await session.ws_connect(f"{url}/ws", origin=url) for _ in range(MAX_SCREENS)
            ]
            with pytest.raises(aiohttp.WSServerHandshakeError, match="503"):
                await session.ws_connect(f"{url}/ws", origin=url)
            for screen in screens:
                await screen.close()

    served("", None, use)
