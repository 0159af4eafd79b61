"""`fccl stop`: stop the coordinator."""

from __future__ import annotations

from pathlib import Path

import click

from cli.control import control


@click.command()
@control.options
@control.sure
def command(config_path: Path | None, directory: Path | None, yes: bool) -> None:
    """Commit what is buffered and end the coordinator, now; open tasks wait for its return.

    `fccl coordinator --resume` goes on.
    """
    control.control("stop", config_path, directory, ask=None if yes else "Stop")
