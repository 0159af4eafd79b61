"""`fccl demo`: coordinator, worker, broker and store in one process, ending with a report.

On a terminal, a second process shows the screen (`cli/demo/terminal.py`) and starts the one with
the federation (`cli/demo/child.py`).
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
from cli.demo.child import run_child
from cli.options import config_option, mode_from_flags, mode_options, plain_option
from common.config import loader
from common.config.config import FederationConfig


@click.command()
@config_option
@click.option("--data", type=click.Path(path_type=Path), help="File with rows for the first phase.")
@click.option("--out", type=click.Path(path_type=Path), help="Run directory [runs/demo].")
@mode_options
@plain_option
@click.option("--child-of", metavar="TERMINAL", hidden=True)
def command(
    config_path: Path | None,
    data: Path | None,
    out: Path | None,
    resume: bool,
    new: bool,
    continue_: bool,
    plain: bool,
    child_of: str | None,
) -> None:
    """Run a whole federation on this machine, without any server.

    On a terminal it opens the screen of `fccl tui`; press ? for the keys and q to leave. With
    --plain, in a pipe, and where the variable CI is set, it prints lines instead.

    Without --data it learns from synthetic instructions. Ctrl-C stops it cleanly, and --resume
    continues it.
    """
    mode = mode_from_flags(resume, new, continue_)
    config = configure(config_path, data, out)
    if child_of is not None:
        # Everything is written and sent. An orderly shutdown of torch would take seconds more.
        os._exit(run_child(config, mode, child_of))
    checks.check_demo(config, mode)
    if plain or not terminal.can_show_screen(os.environ, sys.stdin, sys.stdout):
        from cli.demo.federation import run_federation

        sys.exit(run_federation(config, mode, Output(plain=True)))
    tty = os.ttyname(sys.stdin.fileno())
    arguments = child_arguments(config_path, data, out, mode, tty)
    sys.exit(terminal.run_with_screen(arguments, Output(plain=False)))


def child_arguments(
    config_path: Path | None, data: Path | None, out: Path | None, mode: str, terminal: str
) -> list[str]:
    """Return the arguments of the same command for the process behind the screen."""
    paths = {"--config": config_path, "--data": data, "--out": out}
    options = [word for name, path in paths.items() if path for word in (name, str(path))]
    flags = [] if mode == "start" else [f"--{mode}"]
    return ["demo", "--child-of", terminal, *options, *flags]


def configure(config_path: Path | None, data: Path | None, out: Path | None) -> FederationConfig:
    """Return the configuration from a file, if one is named, and from the options."""
    config = loader.load(config_path)
    run: dict[str, Any] = {} if config_path else {"name": "demo"}
    if out is not None:
        run = {"dir": str(out.parent), "name": out.name}
    table = config.model_dump()
    table["run"] |= run
    if data is not None:
        table["data"][config.phase[0].kind] = str(data)
    return loader.parse(table, "fccl demo")
