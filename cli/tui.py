"""`fccl tui`: watch a run, in this terminal or in a browser."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

import click

from cli.options import config_option, find_config
from common import config as configuration
from common.config import FederationConfig
from common.embedded import announced
from common.errors import ConfigError
from common.store import Store, connect

TIMEOUT_S = 2.0  # for one answer of the store; the screen goes on meanwhile
WEB_DRIVER = "TEXTUAL_DRIVER"  # set by textual-serve: the terminal is then a browser


@click.command()
@config_option
@click.option(
    "--run",
    "directory",
    type=click.Path(path_type=Path),
    help="Directory of a demo that runs in another terminal, e.g. runs/demo.",
)
@click.option("--web", is_flag=True, help="Serve it to browsers instead, until Ctrl-C.")
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Where --web listens. Whoever reaches it can watch.",
)
@click.option("--port", default=8000, show_default=True, type=click.IntRange(1, 65535))
@click.option("--read-only", is_flag=True, help="No keys that change the run.")
@click.option("--controls", is_flag=True, help="With --web: whoever reaches it can also steer.")
@click.option("--public-url", help="How browsers reach --web, if not as http://HOST:PORT.")
def command(
    config_path: Path | None,
    directory: Path | None,
    web: bool,
    host: str,
    port: int,
    read_only: bool,
    controls: bool,
    public_url: str | None,
) -> None:
    """Watch a run, and steer it: pause, resume, drain, stop; kick a client, reissue its task."""
    if controls and (read_only or not web):
        raise click.UsageError("--controls goes with --web, and not with --read-only")
    found = find_config(config_path)
    config = configuration.load(found)
    name = directory.name if directory else config.run.name
    if web:
        _serve(_arguments(found, directory, controls), name, host, port, public_url)
        return
    if not (sys.stdin.isatty() and sys.stdout.isatty()) and WEB_DRIVER not in os.environ:
        raise ConfigError(
            "`fccl tui` needs a terminal",
            "use `fccl status` for one look, `fccl tui --web` for a browser",
        )
    from tui.app import Watch
    from tui.controls import Controls
    from tui.feed import Feed

    def connected() -> Store:
        return _store(config, directory)

    Watch(Feed(connected, name), None if read_only else Controls(connected)).run()


def _store(config: FederationConfig, directory: Path | None) -> Store:
    if directory is not None:
        return connect(announced(directory), TIMEOUT_S)
    return connect(config.store.url, TIMEOUT_S, config.store.ca)


def _arguments(config: Path | None, directory: Path | None, controls: bool) -> list[str]:
    """The command that shows the same in a terminal."""
    # -P: what lies in the working directory is no part of the program.
    words = [sys.executable, "-P", "-m", "cli", "tui"]
    words += ["--config", str(config)] if config else []
    words += [] if controls else ["--read-only"]
    return words + (["--run", str(directory)] if directory else [])


def _serve(words: list[str], name: str, host: str, port: int, public_url: str | None) -> None:
    import logging

    from aiohttp.web import Application
    from textual_serve.server import Server

    class Quiet(Server):
        """Says where it is, and otherwise only what went wrong."""

        def initialize_logging(self) -> None:
            logging.basicConfig(level="WARNING", format="fccl: %(message)s")

        async def on_startup(self, app: Application) -> None:
            click.echo(f"run {name} at {self.public_url}; Ctrl-C ends it")

    # The server hands its command to a shell.
    server = Quiet(shlex.join(words), host, port, title=f"fccl {name}", public_url=public_url)
    try:
        server.serve()
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError(f"{host}:{port}: {reason}", "choose another --port") from None
