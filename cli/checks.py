"""Checks before a run starts, made before torch is imported, which takes seconds."""

from __future__ import annotations

import re
from pathlib import Path
from typing import cast

from common.config.config import FederationConfig
from common.errors import ConfigError, DataError
from coordinator.sites.registry import SiteRegistry
from coordinator.storage import run as runs
from coordinator.storage.run import StartMode

FILES = {".json", ".jsonl", ".csv", ".tsv", ".parquet", ".txt"}


def check_can_start(config: FederationConfig, mode: str) -> None:
    """Raise an error for a run that cannot start in a mode of `coordinator.storage.run.StartMode`.

    Raises:
        RunError: The run directory exists and must not, or the reverse.
        DataError: A data file of a new run, or the file of prompts, does not exist.
    """
    runs.check_mode(config, cast(StartMode, mode))
    prompts = config.samples.prompts_file
    if prompts is not None and not Path(prompts).is_file():
        raise DataError(f"file {prompts} does not exist", "check samples.prompts_file")
    if _continues(config, mode):
        return
    sources = {f"data.{kind}": config.data.source(kind) for kind in config.kinds}
    if config.sites_only:
        sources = {"evaluation.rows": config.evaluation.rows} if config.evaluation.rows else {}
    for key, source in sources.items():
        if source != "synthetic" and not Path(source).exists() and not _maybe_hub(source):
            raise DataError(f"data file {source} does not exist", f"check {key}")


def check_clients(config: FederationConfig, invited: int) -> None:
    """Raise `ConfigError` if fewer clients can take part than a new run needs.

    Sites can be invited later, so that a run without dealt rows is never refused.

    Args:
        invited: Number of clients that the invited sites may bring.
    """
    clients = config.data.clients + invited
    if config.sites_only:
        return
    beside = f" and those of invited sites ({invited})" if invited else ""
    if config.min_clients > clients:
        raise ConfigError(
            f"schedule.min_clients is {config.min_clients}, but the run has {clients} clients:"
            f" those with dealt rows ({config.data.clients}){beside}",
            "lower it, raise data.clients, or invite sites before the start (`fccl invite`)",
        )
    if config.aggregation.contribution_source == "federated" and clients == 1:
        raise ConfigError(
            'aggregation.contribution_source = "federated" lets other clients score an update, but'
            " the run has one client",
            "raise data.clients, invite sites before the start, or choose another source",
        )


def invited_clients(registry: SiteRegistry) -> int:
    """Return the number of clients that the sites of a federation may bring."""
    return sum(site.max_clients for site in registry.all() if site.state != "revoked")


def check_coordinator(config: FederationConfig, mode: str) -> None:
    """Raise an error for a run that `fccl coordinator` cannot start in a mode."""
    check_can_start(config, mode)
    if not _continues(config, mode):
        check_clients(config, invited_clients(SiteRegistry(config.run.sites)))


def check_demo(config: FederationConfig, mode: str) -> None:
    """Raise `ConfigError` for a run that cannot take place on one machine without servers."""
    if config.sites_only:
        raise ConfigError(
            "data.clients = 0 leaves all rows to invited sites, and a demo has none",
            "set data.clients to 1 or more, or start `fccl coordinator`",
        )
    check_can_start(config, mode)
    if not _continues(config, mode):
        check_clients(config, 0)


def _continues(config: FederationConfig, mode: str) -> bool:
    """Return whether an existing run goes on, which keeps its rows."""
    return mode == "resume" or (mode == "continue" and runs.run_exists(config))


def _maybe_hub(source: str) -> bool:
    """Return whether this may be the id of a hub data set rather than a file's name."""
    named = re.fullmatch(r"[\w.-]+(/[\w.-]+)?(:.+)?", source) is not None
    return named and Path(source).suffix.lower() not in FILES
