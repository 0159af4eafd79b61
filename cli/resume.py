"""`fccl resume`: let a paused run go on."""

from __future__ import annotations

from pathlib import Path

import click

from cli import controlling


@click.command()
@controlling.options
def command(config_path: Path | None, directory: Path | None) -> None:
    """Let a paused run go on."""
    controlling.control("resume", config_path, directory)
