"""What the commands that control a run have in common: ask the coordinator, wait for its word."""

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
ENDED = ("stopped", "finished", "failed")
POLL_S = 0.2

F = TypeVar("F", bound=Callable[..., Any])


def options(function: F) -> F:
    """`--config FILE` and `--run DIR`."""
    return config_option(run_option(function))


def sure(function: F) -> F:
    """`--yes`."""
    return click.option("--yes", is_flag=True, help="Do not ask whether you are sure.")(function)


def control(
    action: CommandName,
    config_path: Path | None,
    directory: Path | None,
    target: str = "",
    *,
    ask: str | None = None,
) -> None:
    """Ask for an action, and say what the coordinator answered.

    Args:
        action: What is asked.
        config_path: Of `--config`.
        directory: Of `--run`.
        target: Of the action.
        ask: Ask the user first: "<ask> run NAME?"

    Raises:
        RunError: The coordinator refuses, or says nothing.
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
    told = view.read(store, name).info.status
    if told in ENDED:
        raise RunError(f"run {name} is {told}: no coordinator serves it", "see `fccl status`")
    if ask is not None and not _agreed(f"{ask} run {name}?"):
        click.echo("nothing was asked")
        return
    try:
        command = commands.send(store, run, action, target)
    except ValueError:
        raise ConfigError(f"{target!r:.80} is no name", "see `fccl status`") from None
    click.echo(_answered(store, run, command))


def _agreed(question: str) -> bool:
    if not sys.stdin.isatty():
        raise ConfigError(f"cannot ask: {question}", "say --yes")
    return click.confirm(question)


def _answered(store: Store, run: str, command: Command) -> str:
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        answer = commands.read_reply(store, run, command.command_id)
        if answer is not None and answer.state == "refused":
            raise RunError(f"the coordinator refuses: {answer.reason}")
        if answer is not None:
            return f"{command.action} {command.target}".strip() + ": done"
        time.sleep(POLL_S)
    commands.withdraw(store, run, command)
    raise RunError(
        f"the coordinator has not answered in {WAIT_S:.0f} s, and {command.action} is withdrawn",
        "see whether it runs: `fccl status`",
    )
