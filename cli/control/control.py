"""Shared part of the commands that control a run: send a command and wait for the reply."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from cli.options import config_option, find_config, run_option
from common.config import loader
from common.errors import ConfigError, RunError, StoreError
from common.protocol import commands
from common.protocol.commands import Command, CommandName
from common.store import view
from common.store.embedded import read_address
from common.store.store import Store, connect

WAIT_S = 15.0
POLL_S = 0.2

F = TypeVar("F", bound=Callable[..., Any])


def run_options(function: F) -> F:
    return config_option(run_option(function))


def yes_option(function: F) -> F:
    return click.option("--yes", is_flag=True, help="Do not ask for confirmation.")(function)


def send_command(
    action: CommandName,
    config_path: Path | None,
    directory: Path | None,
    target: str = "",
    *,
    question: str | None = None,
) -> None:
    """Send a command to the coordinator of a run, and print its reply.

    `config_path` and `directory` are the values of `--config` and `--run`; `target` is a client or
    task. With a `question`, the user is asked first: "<question> run NAME?".

    Raises:
        RunError: The coordinator refuses, or does not reply.
        StoreError: No such run is known, or the store is out of reach.
    """
    config = loader.load(find_config(config_path))
    url = read_address(directory) if directory else config.store.url
    name = directory.name if directory else config.run.name
    store = connect(url, ca=config.store.ca)
    run = store.get_run(name)
    if run is None:
        raise StoreError(
            f"no run {name!r} is known at {store.where}", "start it with `fccl coordinator`"
        )
    status = view.read(store, name).info.status
    if status in view.ENDED_STATUSES:
        raise RunError(f"run {name} is {status}: no coordinator serves it", "see `fccl status`")
    if question is not None and not _confirmed(f"{question} run {name}?"):
        click.echo("nothing was sent")
        return
    try:
        command = commands.send(store, run, action, target)
    except ValueError:
        raise ConfigError(
            f"{target!r:.80} is not the name of a client or task", "see `fccl status`"
        ) from None
    click.echo(await_reply(store, run, command))


def _confirmed(question: str) -> bool:
    if not sys.stdin.isatty():
        raise ConfigError(f"no terminal to ask: {question}", "confirm with --yes")
    return click.confirm(question)


def await_reply(store: Store, run: str, command: Command) -> str:
    """Wait for the coordinator's reply to a command, and return it as a line.

    Raises:
        RunError: The coordinator refuses, or has not answered in time; the command is withdrawn.
    """
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        reply = commands.read_reply(store, run, command.command_id)
        if reply is not None and reply.state == "refused":
            raise RunError(f"the coordinator refuses: {reply.reason}")
        if reply is not None:
            return f"{command.action} {command.target}".strip() + ": done"
        time.sleep(POLL_S)
    commands.withdraw(store, run, command)
    raise RunError(
        f"the coordinator has not answered in {WAIT_S:.0f} s, and {command.action} is withdrawn",
        "check that it runs: `fccl status`",
    )
