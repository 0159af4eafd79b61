"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from common.config.config import FederationConfig

F = TypeVar("F", bound=Callable[..., Any])

DEFAULT_CONFIG = Path("federation.toml")


def config_option(function: F) -> F:
    """Add `--config FILE`, without which `federation.toml` is read if it exists."""
    return click.option(
        "--config",
        "config_path",
        type=click.Path(path_type=Path),
        help="Configuration file [default: federation.toml, if it exists].",
    )(function)


def mode_options(function: F) -> F:
    """Add `--resume`, `--new` and `--continue`."""
    resume = click.option("--resume", is_flag=True, help="Continue the existing run.")
    new = click.option("--new", is_flag=True, help="Move an existing run aside and start over.")
    continue_ = click.option(
        "--continue",
        "continue_",
        is_flag=True,
        help="Continue the run if it exists, else start it: for containers and services.",
    )
    return resume(new(continue_(function)))


def run_option(function: F) -> F:
    """Add `--run DIR`: the run of a demo instead of the configured one."""
    return click.option(
        "--run",
        "directory",
        type=click.Path(path_type=Path),
        help="Directory of a demo running in another terminal, e.g. runs/demo.",
    )(function)


def plain_option(function: F) -> F:
    text = "Print plain lines instead of a live display."
    return click.option("--plain", is_flag=True, help=text)(function)


def find_config(path: Path | None) -> Path | None:
    """Return the given file, or `federation.toml` of the current directory if it exists."""
    if path is not None:
        return path
    return DEFAULT_CONFIG if DEFAULT_CONFIG.exists() else None


def mode_from_flags(resume: bool, new: bool, continue_: bool) -> str:
    """Return the mode, as `coordinator.storage.run.StartMode`.

    Raises:
        click.UsageError: More than one flag is given.
    """
    modes = {"resume": resume, "new": new, "continue": continue_}
    given = [mode for mode, is_given in modes.items() if is_given]
    if len(given) > 1:
        raise click.UsageError(f"--{given[0]} and --{given[1]} exclude each other")
    return given[0] if given else "start"


def metrics_option(function: F) -> F:
    text = "Port of /metrics, /livez and /readyz; 0 for none [operations.metrics_port]."
    return click.option("--metrics-port", type=click.IntRange(0, 65535), help=text)(function)


def with_metrics_port(config: FederationConfig, port: int | None) -> FederationConfig:
    if port is None:
        return config
    operations = config.operations.model_copy(update={"metrics_port": port})
    return config.model_copy(update={"operations": operations})
