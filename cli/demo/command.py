"""`fccl demo`: coordinator, worker, broker and store in one process, ending with a report.

On a terminal that process is the child of another one, which shows it: `cli/demo/terminal.py`.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from cli import checks
from cli.console import Output
from cli.demo import terminal
from cli.demo.messages import Telling
from cli.options import config_option, mode_from_flags, mode_options, plain_option
from common.config import loader
from common.config.config import FederationConfig


@click.command()
@config_option
@click.option("--data", type=click.Path(path_type=Path), help="Rows of the first phase: a file.")
@click.option("--out", type=click.Path(path_type=Path), help="Run directory [runs/demo].")
@mode_options
@plain_option
@click.option("--told", is_flag=True, hidden=True)  # of the process behind the view
def command(
    config_path: Path | None,
    data: Path | None,
    out: Path | None,
    resume: bool,
    new: bool,
    continue_: bool,
    plain: bool,
    told: bool,
) -> None:
    """Run a whole federation on this machine: nothing to install, nothing to start.

    On a terminal it opens the view of `fccl tui`: ? tells the keys, q leaves. With --plain, in a
    pipe, and where CI is set, it prints lines instead.

    Without --data it learns from synthetic instructions. Ctrl-C stops it cleanly; --resume goes on.
    """
    mode = mode_from_flags(resume, new, continue_)
    config = configure(config_path, data, out)
    if told:
        # All is written and told. Taking torch down in an orderly way keeps the prompt for seconds.
        os._exit(serve(config, mode, Telling()))
    if plain or not terminal.fits(os.environ, sys.stdin, sys.stdout):
        sys.exit(serve(config, mode, Output(plain=True)))
    checks.check_can_start(config, mode)
    arguments = again(config_path, data, out, mode)
    sys.exit(terminal.serve(arguments, Output(plain=False)))


def again(config_path: Path | None, data: Path | None, out: Path | None, mode: str) -> list[str]:
    """The same command, for the process behind the view."""
    named = {"--config": config_path, "--data": data, "--out": out}
    options = [word for name, path in named.items() if path for word in (name, str(path))]
    return ["demo", "--told", *options, *([] if mode == "start" else [f"--{mode}"])]


def configure(config_path: Path | None, data: Path | None, out: Path | None) -> FederationConfig:
    """The demo's configuration: a file, if one is named, and the options."""
    config = loader.load(config_path)
    run: dict[str, Any] = {} if config_path else {"name": "demo"}
    if out is not None:
        run = {"dir": str(out.parent), "name": out.name}
    table = config.model_dump()
    table["run"] |= run
    if data is not None:
        table["data"][config.phase[0].kind] = str(data)
    return loader.parse(table, "fccl demo")


def serve(config: FederationConfig, mode: str, output: Output) -> int:
    """Run the federation; returns the exit code."""
    checks.check_can_start(config, mode)
    from cli.demo import federation

    return federation.serve(config, mode, output)
