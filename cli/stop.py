"""`fccl stop`: stop the coordinator."""

from __future__ import annotations

from pathlib import Path

import click

from cli import controlling


@click.command()
@controlling.options
@controlling.sure
def command(config_path: Path | None, directory: Path | None, yes: bool) -> None:
    """Commit what is buffered and end the coordinator, now; open tasks wait for its return.

    `fccl coordinator --resume` goes on.
    """
    controlling.control("stop", config_path, directory, ask=None if yes else "Stop")
