"""`fccl tui`: screen of a live or recorded run, in this terminal or in a browser."""

from __future__ import annotations

import math
import os
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.console import can_draw
from cli.options import config_option, find_config, run_option
from cli.signals import close_on_signals
from common.config import loader
from common.errors import ConfigError
from common.run_directory import recorded_run
from common.store.embedded import read_address
from common.store.store import Store, connect
from common.urls import HTTP, UrlError, parse_url
from tui.data.recorded_views import view_at
from tui.data.replay import FASTEST, SLOWEST, SPEED, Replay

if TYPE_CHECKING:
    from textual.app import App

TIMEOUT_S = 2.0  # for one answer of the store; the screen is not blocked meanwhile
WEB_DRIVER = "TEXTUAL_DRIVER"  # set by textual-serve: the terminal is then a browser


@click.command()
@config_option
@run_option
@click.option(
    "--replay",
    "recorded",
    type=click.Path(path_type=Path),
    help="Replay a run from its directory; needs no server.",
)
@click.option(
    "--speed",
    type=click.FloatRange(SLOWEST, FASTEST),
    metavar="N",
    help=f"With --replay: seconds of the run per second [{SPEED:g}]; + and - change it.",
)
@click.option("--web", is_flag=True, help="Serve the screen to browsers until Ctrl-C.")
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address on which --web listens. Except on loopback, the URL has a secret.",
)
@click.option("--port", default=8000, show_default=True, type=click.IntRange(1, 65535))
@click.option("--read-only", is_flag=True, help="Disable the keys that change the run.")
@click.option(
    "--controls",
    is_flag=True,
    help="With --web: allow everybody who knows its URL to change the run.",
)
@click.option("--public-url", help="URL at which browsers reach --web, if not http://HOST:PORT.")
def command(
    config_path: Path | None,
    directory: Path | None,
    recorded: Path | None,
    speed: float | None,
    web: bool,
    host: str,
    port: int,
    read_only: bool,
    controls: bool,
    public_url: str | None,
) -> None:
    """Watch and control a run, or replay a recorded one.

    Keys pause, resume, drain and stop the run, kick a client and reissue its task. A replay
    changes nothing.
    """
    if speed is not None and math.isnan(speed):
        raise click.UsageError("--speed is no number")
    if controls and (read_only or not web):
        raise click.UsageError("--controls goes with --web, and not with --read-only")
    controllable = controls if web else not read_only
    chosen = choose_run(config_path, directory, recorded, speed, controllable)
    if web:
        _serve(chosen.command_line, chosen.name, host, port, public_url, controls)
        return
    if not (sys.stdin.isatty() and sys.stdout.isatty()) and WEB_DRIVER not in os.environ:
        raise ConfigError(
            "`fccl tui` needs a terminal",
            "use `fccl status` to print the state once, `fccl tui --web` for a browser",
        )
    if not can_draw(os.environ) and WEB_DRIVER not in os.environ:
        raise ConfigError(
            f"`fccl tui` needs a terminal that it can draw on, and TERM is"
            f" {os.environ.get('TERM', '')!r}",
            "set TERM (to xterm-256color in most terminals), or use `fccl status`, or"
            " `fccl tui --web` for a browser",
        )
    app = chosen.create_app()
    close_on_signals(app.exit)
    app.run()


@dataclass(frozen=True)
class ShownRun:
    """A run to show."""

    name: str
    options: tuple[str, ...]  # of `fccl tui`, to select it
    create_app: Callable[[], App[None]]

    @property
    def command_line(self) -> list[str]:
        """The command that shows the same run in a terminal."""
        # -P: the working directory may contain modules, which are no part of the program.
        return [sys.executable, "-P", "-m", "cli", "tui", *self.options]


def choose_run(
    config_path: Path | None,
    directory: Path | None,
    recorded: Path | None,
    speed: float | None,
    controllable: bool,
) -> ShownRun:
    if recorded is None:
        if speed is not None:
            raise click.UsageError("--speed goes with --replay")
        return _live(find_config(config_path), directory, controllable)
    if directory is not None:
        raise click.UsageError("--run and --replay exclude each other")
    return _replay(recorded, SPEED if speed is None else speed)


def _live(config_path: Path | None, directory: Path | None, controllable: bool) -> ShownRun:
    config = loader.load(config_path)
    name = directory.name if directory else config.run.name
    options = ["--config", str(config_path)] if config_path else []
    options += ["--run", str(directory)] if directory else []
    options += [] if controllable else ["--read-only"]

    def open_store() -> Store:
        if directory is not None:
            return connect(read_address(directory), TIMEOUT_S)
        return connect(config.store.url, TIMEOUT_S, config.store.ca)

    def create_app() -> App[None]:
        from tui.app import MonitorApp
        from tui.data.command_sender import CommandSender
        from tui.data.reader import ReaderThread

        commands = CommandSender(open_store) if controllable else None
        return MonitorApp(ReaderThread(open_store, name), commands)

    return ShownRun(name, tuple(options), create_app)


def _replay(directory: Path, speed: float) -> ShownRun:
    run = recorded_run.read_run(directory)
    view_at(run, run.ended_at)  # refuse a damaged run here rather than in the middle of the screen
    replay = Replay(run, speed)

    def create_app() -> App[None]:
        from tui.replay_app import ReplayApp

        return ReplayApp(replay)

    return ShownRun(replay.name, ("--replay", str(directory), "--speed", str(speed)), create_app)


def _serve(
    command_line: list[str],
    name: str,
    host: str,
    port: int,
    public_url: str | None,
    controllable: bool,
) -> None:
    from cli.control.web_server import WebServer, is_wildcard, needs_secret, new_secret

    url = _check_public_url(public_url)
    if url is None and is_wildcard(host):
        raise ConfigError(
            f"--host {host} names no address that browsers can open",
            f"give --public-url http://NAME:{port} as well",
        )
    secret = new_secret() if needs_secret(host, url, controllable) else ""
    server = WebServer(shlex.join(command_line), name, host, port, url, secret)
    try:
        server.serve()
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"{host}:{port}: {reason}", "choose another --port") from None


def _check_public_url(text: str | None) -> str | None:
    if text is not None:
        try:
            parse_url(text, HTTP)
        except UrlError as error:
            raise ConfigError(f"--public-url {error.what}", error.remedy) from None
    return text
