"""Options that commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from common.config import FederationConfig

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
    """`--resume` and `--new`."""
    resume = click.option("--resume", is_flag=True, help="Continue the existing run.")
    new = click.option("--new", is_flag=True, help="Set an existing run aside and start over.")
    return resume(new(function))


def plain_option(function: F) -> F:
    """`--plain`."""
    text = "Plain lines instead of a live display."
    return click.option("--plain", is_flag=True, help=text)(function)


def find_config(path: Path | None) -> Path | None:
    """The file to read: the named one, or the one of the current directory if it exists."""
    if path is not None:
        return path
    return DEFAULT_CONFIG if DEFAULT_CONFIG.exists() else None


def mode_of(resume: bool, new: bool) -> str:
    """The mode of `coordinator.run`.

    Raises:
        click.UsageError: Both flags are given.
    """
    if resume and new:
        raise click.UsageError("--resume and --new exclude each other")
    return "resume" if resume else "new" if new else "start"


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
