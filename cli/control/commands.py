"""`fccl pause`, `resume`, `drain`, `stop`, `kick`, `reissue`, `min-clients`: commands."""

from __future__ import annotations

from pathlib import Path

import click

from cli.control.control import run_options, send_command, yes_option


@click.command()
@run_options
def pause(config_path: Path | None, directory: Path | None) -> None:
    """Issue no tasks until `fccl resume`. Open tasks continue, and their updates count."""
    send_command("pause", config_path, directory)


@click.command()
@run_options
def resume(config_path: Path | None, directory: Path | None) -> None:
    """Issue tasks again in a paused run."""
    send_command("resume", config_path, directory)


@click.command()
@run_options
@yes_option
def drain(config_path: Path | None, directory: Path | None, yes: bool) -> None:
    """Issue no more tasks, wait for the open ones, commit, and end the coordinator.

    `fccl coordinator --resume` continues the run.
    """
    send_command("drain", config_path, directory, question=None if yes else "Drain")


@click.command()
@run_options
@yes_option
def stop(config_path: Path | None, directory: Path | None, yes: bool) -> None:
    """Commit what is buffered and end the coordinator now; open tasks wait for its return.

    `fccl coordinator --resume` continues the run.
    """
    send_command("stop", config_path, directory, question=None if yes else "Stop")


@click.command()
@click.argument("client")
@run_options
@yes_option
@click.option("--undo", is_flag=True, help="Give it tasks again; this also lifts a quarantine.")
def kick(
    client: str, config_path: Path | None, directory: Path | None, yes: bool, undo: bool
) -> None:
    """Give CLIENT no more tasks, and close its open one.

    Its site keeps its access; `fccl revoke` ends that.
    """
    if undo:
        send_command("pardon", config_path, directory, client)
        return
    question = None if yes else f"Kick client {client} from"
    send_command("kick", config_path, directory, client, question=question)


@click.command()
@click.argument("task")
@run_options
def reissue(task: str, config_path: Path | None, directory: Path | None) -> None:
    """Issue TASK again from the newest version. TASK may also be the client that has it.

    The first update that arrives counts, whichever attempt it belongs to.
    """
    send_command("reissue", config_path, directory, task)


@click.command("min-clients")
@click.argument("number", type=click.IntRange(1, 999_999))
@run_options
def min_clients(number: int, config_path: Path | None, directory: Path | None) -> None:
    """Set the NUMBER of live clients below which nothing is issued or committed.

    It replaces schedule.min_clients of a running coordinator, for good. With 1, a version may
    consist of a single client's update.
    """
    send_command("min-clients", config_path, directory, str(number))
