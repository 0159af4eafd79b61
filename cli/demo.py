"""`fccl demo`: coordinator, workers, broker and store in one process, ending with a report."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from cli import checks
from cli.console import Output
from cli.options import config_option, mode_of, mode_options, plain_option
from common import config as configuration
from common.config import FederationConfig


@click.command()
@config_option
@click.option("--data", type=click.Path(path_type=Path), help="Rows of the first phase: a file.")
@click.option("--out", type=click.Path(path_type=Path), help="Run directory [runs/demo].")
@mode_options
@plain_option
def command(
    config_path: Path | None,
    data: Path | None,
    out: Path | None,
    resume: bool,
    new: bool,
    either: bool,
    plain: bool,
) -> None:
    """Run a whole federation in this process: nothing to install, nothing to start.

    Without --data it learns from synthetic instructions. Ctrl-C stops it cleanly; --resume goes on.
    """
    config = configure(config_path, data, out)
    sys.exit(serve(config, mode_of(resume, new, either), Output(plain)))


def configure(config_path: Path | None, data: Path | None, out: Path | None) -> FederationConfig:
    """The demo's configuration: a file, if one is named, and the options."""
    config = configuration.load(config_path)
    run: dict[str, Any] = {} if config_path else {"name": "demo"}
    if out is not None:
        run = {"dir": str(out.parent), "name": out.name}
    table = config.model_dump()
    table["run"] |= run
    if data is not None:
        table["data"][config.phase[0].kind] = str(data)
    return configuration.parse(table, "fccl demo")


def serve(config: FederationConfig, mode: str, output: Output) -> int:
    """Run the federation; returns the exit code."""
    checks.check(config, mode)
    from cli import embedded

    return embedded.serve(config, mode, output)
