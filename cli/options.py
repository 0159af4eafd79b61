"""Options that commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from common.config.config import FederationConfig

F = TypeVar("F", bound=Callable[..., Any])

DEFAULT_CONFIG = Path("federation.toml")


def config_option(function: F) -> F:
    """`--config FILE`; without it `federation.toml`, where there is one."""
    return click.option(
        "--config",
        "config_path",
        type=click.Path(path_type=Path),
        help="The configuration [default: federation.toml, if it is there].",
    )(function)


def mode_options(function: F) -> F:
    """`--resume`, `--new` and `--continue`."""
    resume = click.option("--resume", is_flag=True, help="Continue the existing run.")
    new = click.option("--new", is_flag=True, help="Set an existing run aside and start over.")
    either = click.option(
        "--continue",
        "either",
        is_flag=True,
        help="Continue the run if it exists, start it otherwise: for containers and services.",
    )
    return resume(new(either(function)))


def run_option(function: F) -> F:
    """`--run DIR`: an embedded run instead of the configured one."""
    return click.option(
        "--run",
        "directory",
        type=click.Path(path_type=Path),
        help="Directory of a demo that runs in another terminal, e.g. runs/demo.",
    )(function)


def plain_option(function: F) -> F:
    """`--plain`."""
    text = "Plain lines instead of a live display."
    return click.option("--plain", is_flag=True, help=text)(function)


def find_config(path: Path | None) -> Path | None:
    """The file to read: the named one, or the one of the current directory if it exists."""
    if path is not None:
        return path
    return DEFAULT_CONFIG if DEFAULT_CONFIG.exists() else None


def mode_from_flags(resume: bool, new: bool, either: bool) -> str:
    """The mode of `coordinator.storage.run`.

    Raises:
        click.UsageError: More than one flag is given.
    """
    modes = {"resume": resume, "new": new, "continue": either}
    given = [mode for mode, is_given in modes.items() if is_given]
    if len(given) > 1:
        raise click.UsageError(f"--{given[0]} and --{given[1]} exclude each other")
    return given[0] if given else "start"


def metrics_option(function: F) -> F:
    """`--metrics-port N`."""
    text = "Serve /metrics, /livez and /readyz there; 0 for none [operations.metrics_port]."
    return click.option("--metrics-port", type=click.IntRange(0, 65535), help=text)(function)


def with_metrics_port(config: FederationConfig, port: int | None) -> FederationConfig:
    """The configuration, with the port of `--metrics-port` where that was given."""
    if port is None:
        return config
    operations = config.operations.model_copy(update={"metrics_port": port})
    return config.model_copy(update={"operations": operations})
