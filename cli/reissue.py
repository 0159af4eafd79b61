"""`fccl reissue`: issue an open task again."""

from __future__ import annotations

from pathlib import Path

import click

from cli import controlling


@click.command()
@click.argument("task")
@controlling.options
def command(task: str, config_path: Path | None, directory: Path | None) -> None:
    """Issue TASK again from the newest version; TASK may be the client that has it.

    The first update that arrives counts, from whichever attempt.
    """
    controlling.control("reissue", config_path, directory, task)
