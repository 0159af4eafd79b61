"""How `fccl worker` becomes, or is, an invited site."""

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
from worker.events import EventCallback, WorkerEventKind
from worker.site import identity
from worker.site.enrolment import revoked_error

RETRY_S = 1.0


@dataclass(frozen=True)
class SiteRequest:
    """The site that a worker is to be, and where its identity is or will be.

    `invitation` is None for one that has joined before.
    """

    site: str
    place: Path
    invitation: Invitation | None = None


def site_request(join: str | None, site: str, name: str) -> SiteRequest:
    """What the command line asks for.

    Args:
        join: What `--join` says, if it was given.
        site: What `--site` says.
        name: Of the runs, where this machine is that site of several federations.

    Raises:
        JoinError: The token cannot be used, or this machine has not joined.
    """
    if join is None:
        return SiteRequest(site, _known(site, name))
    found = read_invitation(join)
    return SiteRequest(
        found.site, identity.identity_dir(state_dir(), found.name, found.site), found
    )


def read_invitation(word: str) -> Invitation:
    """The invitation behind `--join`: a token, `@FILE` that holds one, or `-` for standard input.

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
    """Refuse a file that is not there, before anything slow is done."""
    for path in data:
        if not path.exists():
            raise DataError(f"data file {path} does not exist", "check --data")


def join_federation(
    request: SiteRequest, stop: Flag, host: str, told: EventCallback
) -> FederationConfig | None:
    """Ask to join, unless that was done before; None if `stop` was set first.

    Returns:
        How the site reaches its federation.
    """
    if request.invitation is None:
        mine = identity.load(request.place)
    else:
        mine = identity.join(
            request.invitation,
            request.place,
            host=host,
            software=software_version(),
            stop=stop,
            told=told,
        )
    return None if mine is None else identity.worker_config(mine, request.place)


def _known(site: str, name: str) -> Path:
    """The identity of a site that joined before."""
    place = identity.identity_dir(state_dir(), name, site)
    if identity.load(place) is not None:
        return place
    if (found := identity.find(state_dir(), site)) is not None:
        return found
    raise JoinError(
        f"this machine has not joined as site {site}",
        f"fccl worker --join TOKEN, with the token that `fccl invite {site}` prints",
    )


def connect_stores(
    config: FederationConfig, site: str | None, stop: Flag, told: EventCallback
) -> tuple[Store, Store] | None:
    """Two connections to the store; None if `stop` was set first.

    Args:
        config: Of the worker.
        site: Its name, if it was invited: a store that restarted empty refuses it until the
            coordinator has filled it, which is waited for.
        stop: Ends the waiting.
        told: Called with the kind and text of what is waited for.

    Raises:
        JoinError: The broker refuses the site, too: it was revoked.
        StoreError: Out of reach.
    """
    said = False
    while not stop.is_set():
        try:
            work = connect(config.store.url, ca=config.store.ca)
            return work, connect(config.store.url, timeout_s=1.0, ca=config.store.ca)
        except StoreAccessError:
            if site is None:
                raise
            if login_refused(config.broker.url, config.broker.ca):
                raise revoked_error(site) from None
            if not said:
                told(
                    WorkerEventKind.WAITING,
                    "the store does not know this site; the coordinator fills it again",
                )
            said = True
            stop.wait(RETRY_S)
    return None
