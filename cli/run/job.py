"""Job of a worker process: its site, its rows, and its state directory."""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Event as Flag

from broker.protocol import LOCAL, Site
from cli.console import Output
from cli.run import join_site
from cli.run.join_site import SiteRequest
from common.config.config import FederationConfig, IncrementalConfig
from common.errors import ConfigError, DataError
from worker.settings import loader
from worker.settings.settings import SiteSettings


@dataclass(frozen=True)
class WorkerJob:
    """Site, rows and settings of a worker process."""

    config: FederationConfig
    site: Site
    data: Path  # directory of the clients' rows
    state: Path  # directory for work in flight
    forever: bool = False  # serve the next run of the same name when one is over
    base: Path | None = None  # directory of the run's base model on this machine
    site_settings: SiteSettings = SiteSettings()  # noqa: RUF009 - frozen
    settings_dir: Path = Path()  # directory of worker.toml and of approved plans
    review: bool = False  # somebody is here to approve the run's plan
    identity_dir: Path | None = None  # folder with the identity of an invited site

    @property
    def invited_site(self) -> str | None:
        """The name of the site, unless it is the coordinator's own."""
        return None if self.site == LOCAL else self.site.name


def local_job(
    config: FederationConfig, data: tuple[Path, ...], state: Path | None, *, forever: bool = False
) -> WorkerJob:
    """Return the job of a worker at the coordinator's own site.

    Raises:
        ConfigError: All rows of the run stay at invited sites.
        DataError: `--data` does not name one directory.
    """
    if config.sites_only:
        raise ConfigError(
            "with data.clients = 0 the coordinator's own site has no clients to train",
            "`fccl invite SITE` prints a token: fccl worker --join TOKEN --data FILE",
        )
    if len(data) > 1:
        raise DataError(f"--data names {len(data)} paths", "name one directory of client files")
    if data and not data[0].is_dir():
        raise DataError(
            f"{data[0]} is no directory", "name a directory of client files with --data"
        )
    directory = data[0] if data else config.run.path / "clients"
    return WorkerJob(config, LOCAL, directory, state or local_state(config), forever)


def invited_job(
    request: SiteRequest,
    data: tuple[Path, ...],
    state: Path | None,
    incremental: IncrementalConfig,
    output: Output,
    stop: Flag,
    *,
    columns: Mapping[str, str] | None = None,
    forever: bool = False,
) -> WorkerJob | None:
    """Import the rows of an invited site, and join unless it has joined; None after `stop`.

    The rows come first, so that a token is not used up for rows that cannot be read.
    """
    join_site.check_files(data)
    from worker.data.import_rows import import_rows

    rows = import_rows(
        data,
        request.site,
        request.directory / "data",
        output.print,
        columns or {},
        request.expected,
    )
    config = join_site.join_federation(request, stop, host_name(), output.event)
    if config is None:
        return None
    # The site itself decides how its clients learn from their users: in the configuration of this
    # machine, like the address of its metrics.
    config = config.model_copy(update={"incremental": incremental})
    return WorkerJob(
        config,
        Site(request.site),
        rows,
        state or request.directory / "work",
        forever,
        identity_dir=request.directory,
    )


def settings_path(config: FederationConfig, site: SiteRequest | None, state: Path | None) -> Path:
    """Return the path of the settings of a site: in its state directory.

    That is `state` if it is named, else the folder with the identity of an invited site.
    """
    if state is not None:
        return state / loader.FILE
    directory = site.directory if site is not None else local_state(config)
    return directory / loader.FILE


def local_state(config: FederationConfig) -> Path:
    """Return the default state directory of workers at the coordinator's own site."""
    return Path(config.run.dir) / ".workers"


def host_name() -> str:
    """Return this machine's name in the form of an identifier."""
    return re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname())[:40].strip("-") or "host"
