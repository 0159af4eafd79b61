"""`fccl resume`: let a paused run go on."""

from __future__ import annotations

from pathlib import Path

import click

from cli.control import control


@click.command()
@control.options
def command(config_path: Path | None, directory: Path | None) -> None:
    """Let a paused run go on."""
    control.control("resume", config_path, directory)
