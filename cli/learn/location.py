"""Which client's inbox a front door puts items into, and where the worker beside it keeps state.

`fccl learn`, `fccl try` and `fccl inbox` name both in the same way: by what a worker of this
machine serves (`worker/incremental/serving/served_run.py`), in the directory that it uses for work in flight.
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
from coordinator.storage.run_config import saved_config
from worker.incremental.inbox import schema
from worker.incremental.inbox.items import TASK
from worker.incremental.serving import served_run
from worker.incremental.serving.served_run import ServedRun
from worker.spool import count_workers

_LISTED = 12  # clients in one message

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class StateLocation:
    """Where a worker keeps its state.

    Attributes:
        state: The directory.
        limits: How much an inbox there takes.
        served: What a worker of this machine told last; None where none ever ran.
    """

    state: Path
    limits: IncrementalConfig
    served: ServedRun | None

    def why_waiting(self) -> str:
        """Why an item is not learned at once; empty where a worker runs that will."""
        if not self.limits.enabled:
            return "it is not learned, for incremental.enabled is false"
        if not count_workers(self.state):
            return "no worker runs here; it is learned when one does (`fccl worker`)"
        return ""


@dataclass(frozen=True)
class InboxLocation(StateLocation):
    """Whose inbox, and where.

    Attributes:
        client: Whose.
    """

    client: str

    @property
    def path(self) -> Path:
        """The inbox's file."""
        return schema.inbox_path(self.state, self.client)


def inbox_options(function: F) -> F:
    """`--client`, `--state`, `--site`, `--run` and `--config`; what `locate_inbox` wants."""
    client = click.option(
        "--client", help="Whose inbox and model [default: the only client that is served here]."
    )
    state = click.option(
        "--state",
        type=click.Path(path_type=Path),
        help="The worker's --state [default: .workers/ beside the run directory].",
    )
    site = click.option(
        "--site",
        default=LOCAL_SITE,
        help="The invited site that the worker here belongs to [local].",
    )
    return client(state(site(run_option(config_option(function)))))


def task_option(function: F) -> F:
    """`--task`: the stream of what is given."""
    return click.option(
        "--task",
        default=TASK,
        show_default=True,
        help="The stream that it belongs to: a domain, a product; each is measured on its own.",
    )(function)


def locate_inbox(
    config_path: Path | None,
    directory: Path | None,
    site: str,
    state: Path | None,
    client: str | None,
) -> InboxLocation:
    """What the options come to.

    Args:
        config_path: Of `--config`.
        directory: Of `--run`.
        site: Of `--site`.
        state: Of `--state`.
        client: Of `--client`.

    Raises:
        ConfigError: The configuration cannot be used.
        DataError: The client is not served here, or must be named.
        JoinError: This machine has not joined as that site.
        RunError: `--run` is no run directory.
        click.UsageError: Options exclude each other.
    """
    found = locate_state(config_path, directory, site, state)
    name = _client(client, found.served, found.state)
    return InboxLocation(found.state, found.limits, found.served, name)


def locate_state(
    config_path: Path | None, directory: Path | None, site: str, state: Path | None
) -> StateLocation:
    """The part of `locate_inbox` that is of no client; see there."""
    if directory is not None and site != LOCAL_SITE:
        raise click.UsageError("--run and --site exclude each other: an invited site has no run")
    config = loader.load(find_config(config_path)) if directory is None else saved_config(directory)
    found = state or _folder(config, directory, site)
    return StateLocation(found, config.incremental, served_run.read(found))


def _folder(config: FederationConfig, directory: Path | None, site: str) -> Path:
    """Where the worker keeps its state, if nobody says otherwise; as `cli/run/worker.py` has it."""
    if directory is not None:
        return directory.absolute().parent / ".workers"
    if site != LOCAL_SITE:
        from cli.run import join_site

        return join_site.site_request(None, site, config.run.name).directory / "work"
    return Path(config.run.dir) / ".workers"


def _client(name: str | None, told: ServedRun | None, state: Path) -> str:
    if name is None:
        if told is None:
            raise DataError(
                f"no worker has served a client from {state} yet",
                "start `fccl worker` (or `fccl demo`); or name its --state, or a --client",
            )
        if len(told.clients) != 1:
            raise DataError(f"the worker serves {_listed(told.clients)}", "choose one: --client")
        return told.clients[0]
    if told is not None and name not in told.clients:
        raise DataError("the worker serves no such client", f"it serves {_listed(told.clients)}")
    try:
        return TypeAdapter(Identifier).validate_python(name)
    except ValidationError:
        raise DataError(
            "--client is no client's name", "letters, digits, and then also _ . -"
        ) from None


def _listed(clients: tuple[str, ...]) -> str:
    more = f" and {len(clients) - _LISTED} more" if len(clients) > _LISTED else ""
    return ", ".join(clients[:_LISTED] or ("no client",)) + more
