"""Part of `fccl worker` that joins as an invited site, or finds the identity of an earlier join."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event as Flag

from broker.rabbit.probe import login_refused
from common.config.config import FederationConfig
from common.errors import DataError, JoinError, StoreAccessError
from common.paths import state_dir
from common.protocol.invitation import Invitation, decode
from common.software import software_version
from common.store.store import Store, connect
from worker.data.expected_rows import ANY_ROWS, ExpectedRows
from worker.events import EventCallback, WorkerEventKind
from worker.site import identity
from worker.site.enrolment import STORE_FORGOT_SITE, revoked_error
from worker.site.identity import Identity
from worker.site.join import join

RETRY_S = 1.0


@dataclass(frozen=True)
class SiteRequest:
    """Invited site for which a worker is started."""

    site: str
    directory: Path  # where its identity is, or will be
    invitation: Invitation | None = None  # None for a site that has joined before
    expected: ExpectedRows = ANY_ROWS  # what its runs learn from, as far as the site knows


def site_request(token: str | None, site: str, name: str) -> SiteRequest:
    """Return the site of the options `--join` and `--site`.

    The name of the runs decides where this machine is that site of several federations.

    Raises:
        JoinError: The token cannot be used, or this machine has not joined.
    """
    if token is None:
        directory, own = _joined_directory(site, name)
        return SiteRequest(site, directory, None, ExpectedRows(own.kinds, own.labels))
    invitation = read_invitation(token)
    directory = identity.identity_dir(state_dir(), invitation.name, invitation.site)
    expected = ExpectedRows(invitation.kinds or (), invitation.labels or ())
    return SiteRequest(invitation.site, directory, invitation, expected)


def read_invitation(word: str) -> Invitation:
    """Return the invitation of `--join`: a token, `@FILE` that holds one, or `-` for stdin.

    Raises:
        JoinError: There is no token, or it cannot be used.
    """
    if word == "-":
        return decode(sys.stdin.read(), time.time())
    if word.startswith("@"):
        try:
            return decode(Path(word[1:]).read_text(encoding="utf-8"), time.time())
        except (OSError, UnicodeDecodeError) as error:
            raise JoinError(f"{word[1:]} cannot be read ({error})", "check --join @FILE") from None
    return decode(word, time.time())


def check_files(data: Sequence[Path]) -> None:
    """Raise `DataError` if a data file does not exist, before anything slow is done."""
    for path in data:
        if not path.exists():
            raise DataError(f"data file {path} does not exist", "check --data")


def join_federation(
    request: SiteRequest, stop: Flag, host: str, on_event: EventCallback
) -> FederationConfig | None:
    """Join unless the site has joined, and return its configuration; None after `stop`."""
    if request.invitation is None:
        own = identity.load(request.directory)
    else:
        own = join(
            request.invitation,
            request.directory,
            host=host,
            software=software_version(),
            stop=stop,
            on_event=on_event,
        )
    return None if own is None else identity.worker_config(own, request.directory)


def _joined_directory(site: str, name: str) -> tuple[Path, Identity]:
    """Return the folder of a site that has joined, and its identity."""
    directory = identity.identity_dir(state_dir(), name, site)
    if (own := identity.load(directory)) is not None:
        return directory, own
    other = identity.find(state_dir(), site)
    if other is not None and (own := identity.load(other)) is not None:
        return other, own
    raise JoinError(
        f"this machine has not joined as site {site}",
        f"run `fccl worker --join TOKEN` with the token that `fccl invite {site}` prints",
    )


def connect_stores(
    config: FederationConfig, site: str | None, stop: Flag, on_event: EventCallback
) -> tuple[Store, Store] | None:
    """Return two connections to the store: for work, and for heartbeats with short time-outs.

    A store that restarted empty refuses an invited site until the coordinator has filled it again;
    this waits for it. The result is None if `stop` was set meanwhile. For the coordinator's own
    site, `site` is None.

    Raises:
        JoinError: The broker refuses the site, too: it was revoked.
        StoreError: The store is out of reach.
    """
    reported = False
    while not stop.is_set():
        try:
            work = connect(config.store.url, ca=config.store.ca)
            return work, connect(config.store.url, timeout_s=1.0, ca=config.store.ca)
        except StoreAccessError:
            if site is None:
                raise
            if login_refused(config.broker.url, config.broker.ca):
                raise revoked_error(site) from None
            if not reported:
                on_event(WorkerEventKind.WAITING, STORE_FORGOT_SITE)
            reported = True
            stop.wait(RETRY_S)
    return None
