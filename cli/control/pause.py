"""`fccl pause`: issue no more tasks for now."""

from __future__ import annotations

from pathlib import Path

import click

from cli.control import control


@click.command()
@control.options
def command(config_path: Path | None, directory: Path | None) -> None:
    """Issue no tasks until `fccl resume`. Open tasks go on, and their updates count."""
    control.control("pause", config_path, directory)
