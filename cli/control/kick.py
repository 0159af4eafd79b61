"""`fccl kick`: give a client no more tasks."""

from __future__ import annotations

from pathlib import Path

import click

from cli.control import control


@click.command()
@click.argument("client")
@control.options
@control.sure
@click.option("--undo", is_flag=True, help="Give it tasks again; lifts a quarantine, too.")
def command(
    client: str, config_path: Path | None, directory: Path | None, yes: bool, undo: bool
) -> None:
    """Give CLIENT no more tasks, and close its open one. Its site stays; see `fccl revoke`."""
    if undo:
        control.control("pardon", config_path, directory, client)
        return
    ask = None if yes else f"Kick client {client} from"
    control.control("kick", config_path, directory, client, ask=ask)
