"""How `fccl worker` becomes, or is, an invited site."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event as Flag

from broker.rabbit import refused
from common.config import FederationConfig
from common.errors import DataError, JoinError, StoreRefused
from common.invitation import Invitation, decode
from common.paths import state_dir
from common.software import software
from common.store import Store, connect
from worker import identity
from worker.enrolment import out

RETRY_S = 1.0


@dataclass(frozen=True)
class Invited:
    """An invited site on its machine: how it reaches its federation, and where it keeps things."""

    config: FederationConfig
    site: str
    place: Path


def invitation(word: str) -> Invitation:
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


def place_of(found: Invitation) -> Path:
    """Where the site's identity is, or will be."""
    return identity.folder(state_dir(), found.name, found.site)


def become(
    found: Invitation, stop: Flag, host: str, told: Callable[[str, str], None]
) -> Invited | None:
    """Ask to join, unless that was done before; None if `stop` was set first."""
    place = place_of(found)
    mine = identity.join(found, place, host=host, software=software(), stop=stop, told=told)
    if mine is None:
        return None
    return Invited(identity.config_of(mine, place), mine.site, place)


def known(site: str, name: str) -> Invited:
    """A site that joined before.

    Raises:
        JoinError: This machine is not that site.
    """
    place: Path | None = identity.folder(state_dir(), name, site)
    mine = identity.load(place) if place else None
    if mine is None and (place := identity.find(state_dir(), site)) is not None:
        mine = identity.load(place)
    if mine is None or place is None:
        raise JoinError(
            f"this machine has not joined as site {site}",
            f"fccl worker --join TOKEN, with the token that `fccl invite {site}` prints",
        )
    return Invited(identity.config_of(mine, place), site, place)


def stores(
    config: FederationConfig, site: str | None, stop: Flag, told: Callable[[str, str], None]
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
        except StoreRefused:
            if site is None:
                raise
            if refused(config.broker.url, config.broker.ca):
                raise out(site) from None
            if not said:
                told("waiting", "the store does not know this site; the coordinator fills it again")
            said = True
            stop.wait(RETRY_S)
    return None
