"""`fccl reissue`: issue an open task again."""

from __future__ import annotations

from pathlib import Path

import click

from cli.control import control


@click.command()
@click.argument("task")
@control.options
def command(task: str, config_path: Path | None, directory: Path | None) -> None:
    """Issue TASK again from the newest version; TASK may be the client that has it.

    The first update that arrives counts, from whichever attempt.
    """
    control.control("reissue", config_path, directory, task)
