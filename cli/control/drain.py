"""`fccl drain`: let open tasks come in, then stop."""

from __future__ import annotations

from pathlib import Path

import click

from cli.control import control


@click.command()
@control.options
@control.sure
def command(config_path: Path | None, directory: Path | None, yes: bool) -> None:
    """Issue nothing more, wait for the open tasks, commit, and end the coordinator.

    `fccl coordinator --resume` goes on.
    """
    control.control("drain", config_path, directory, ask=None if yes else "Drain")
