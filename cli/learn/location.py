"""Inbox that a command is about: the client, and the state directory of the worker beside it.

`fccl learn`, `fccl try` and `fccl inbox` find both in the same way: from what a worker of this
machine serves (`worker/incremental/serving/served_run.py`), in its state directory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click
from pydantic import TypeAdapter, ValidationError

from cli.options import config_option, find_config, run_option
from common.config import loader
from common.config.config import FederationConfig, IncrementalConfig
from common.errors import DataError
from common.protocol.fields import Identifier
from common.protocol.naming import LOCAL_SITE
from common.run_directory.recorded_run import read_config
from worker.incremental.inbox import schema
from worker.incremental.inbox.items import DEFAULT_TASK, name_list
from worker.incremental.serving import served_run
from worker.incremental.serving.served_run import ServedRun
from worker.settings.loader import FILE as SETTINGS_FILE
from worker.site.identity import FILE as IDENTITY_FILE
from worker.spool import count_workers

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class StateLocation:
    """State directory of a worker."""

    state: Path
    limits: IncrementalConfig  # those of its inboxes
    served: ServedRun | None  # as a worker of this machine has announced; None before the first

    @property
    def settings_path(self) -> Path:
        """The file of the site's settings; beside the state of an invited site."""
        own = self.state / SETTINGS_FILE
        site = self.state.parent
        invited = not own.exists() and (site / IDENTITY_FILE).exists()
        return site / SETTINGS_FILE if invited else own

    def why_waiting(self) -> str:
        """Return why no worker learns the items now; empty if one is running."""
        if not self.limits.enabled:
            return "it will not be learned: incremental.enabled is false"
        if not count_workers(self.state):
            return "no worker is running here; the next one learns it (`fccl worker`)"
        return ""


@dataclass(frozen=True)
class InboxLocation(StateLocation):
    """State directory of a worker, and one of its clients."""

    client: str

    @property
    def path(self) -> Path:
        return schema.inbox_path(self.state, self.client)


def inbox_options(function: F) -> F:
    """Add `--client`, `--state`, `--site`, `--run` and `--config`, from which an inbox is found."""
    client = click.option(
        "--client",
        help="Client whose inbox and model are used [default: the only client served here].",
    )
    state = click.option(
        "--state",
        type=click.Path(path_type=Path),
        help="State directory of the worker [default: .workers/ beside the run directory].",
    )
    site = click.option(
        "--site",
        default=LOCAL_SITE,
        help="Invited site that the worker here belongs to [default: local].",
    )
    return client(state(site(run_option(config_option(function)))))


def task_option(function: F) -> F:
    """Add `--task`, the stream of new items."""
    return click.option(
        "--task",
        default=DEFAULT_TASK,
        show_default=True,
        help="Stream that the items belong to, such as a domain or a product; each is measured"
        " separately.",
    )(function)


def locate_inbox(
    config_path: Path | None,
    directory: Path | None,
    site: str,
    state: Path | None,
    client: str | None,
) -> InboxLocation:
    """Return the inbox that the options `--config`, `--run`, `--site`, `--state`, `--client` name.

    Raises:
        ConfigError: The configuration is not valid.
        DataError: The client is not served here, or must be named.
        JoinError: This machine has not joined as that site.
        RunError: `--run` is not a run directory.
        click.UsageError: Options exclude each other.
    """
    found = locate_state(config_path, directory, site, state)
    name = _client(client, found)
    return InboxLocation(found.state, found.limits, found.served, name)


def locate_state(
    config_path: Path | None, directory: Path | None, site: str, state: Path | None
) -> StateLocation:
    """Return the state directory that the command's options name; see `locate_inbox`."""
    if directory is not None and site != LOCAL_SITE:
        raise click.UsageError(
            "--run and --site exclude each other: an invited site has no run directory"
        )
    config = loader.load(find_config(config_path)) if directory is None else read_config(directory)
    found = state or _default_state(config, directory, site)
    return StateLocation(found, config.incremental, served_run.read(found))


def _default_state(config: FederationConfig, directory: Path | None, site: str) -> Path:
    """Return the worker's default state directory, as `cli/run/worker.py` chooses it."""
    if directory is not None:
        return directory.absolute().parent / ".workers"
    if site != LOCAL_SITE:
        from cli.run import join_site

        return join_site.site_request(None, site, config.run.name).directory / "work"
    return Path(config.run.dir) / ".workers"


def _client(name: str | None, location: StateLocation) -> str:
    served = location.served
    if name is None:
        if served is None:
            raise no_worker_yet(location.state)
        if len(served.clients) != 1:
            clients = name_list(served.clients) or "no client"
            raise DataError(f"the worker serves {clients}", "choose one with --client")
        return served.clients[0]
    if served is not None and name not in served.clients:
        clients = name_list(served.clients) or "no client"
        raise DataError("the worker does not serve this client", f"it serves {clients}")
    try:
        return TypeAdapter(Identifier).validate_python(name)
    except ValidationError:
        raise DataError(
            "--client is not a valid client name",
            "use letters, digits, _ . or -, beginning with a letter or a digit",
        ) from None


def no_worker_yet(state: Path) -> DataError:
    return DataError(
        f"no worker has served a client from {state} yet",
        "start `fccl worker` (or `fccl demo`), or give its --state",
    )
