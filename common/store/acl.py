"""Redis permissions of an invited site, and of the holder of a join token.

Rules are arguments of `ACL SETUSER`; they need no more than Redis 7.0. They never contain a
password, only its SHA-256.
"""

from __future__ import annotations

from collections.abc import Iterable

from common.protocol.naming import runs_glob
from common.store.store import Store

_FRESH = ("reset", "on", "resetchannels", "-@all", "+ping", "+get", "+set", "+del", "+exists")
_CLOCK = "+time"


def site_rules(name: str, site: str, password_sha256: str) -> tuple[str, ...]:
    """Return the rules of a site: it reads what its tasks need, and writes its heartbeats."""
    runs = f"fccl:{runs_glob(name)}"
    readable = (
        *("info", "version", "model", "plan", "delivery", "blob:*"),
        *(f"receipt:{site}:*", f"member:{site}:*"),
    )
    return (
        *(*_FRESH, _CLOCK, f"#{password_sha256}", f"%R~fccl:run:{name}"),
        *(f"%R~{runs}:{each}" for each in readable),
        f"%RW~{runs}:heartbeat:{site}:*",
    )


def join_rules(token_id: str, password_sha256: str, *, used: bool) -> tuple[str, ...]:
    """Return the rules of a token's holder, who may ask once and read the answer.

    `used` says that the request was answered; the holder may then only read.
    """
    key = f"fccl:join:{token_id}"
    asks = () if used else (f"%W~{key}:request",)
    return (*_FRESH, _CLOCK, f"#{password_sha256}", f"%R~{key}:answer", *asks)


def grant(store: Store, user: str, rules: Iterable[str]) -> None:
    """Create a user, or replace all its rules. Its open connections stay."""
    store.execute("ACL", "SETUSER", user, *rules)


def revoke(store: Store, user: str) -> None:
    """Delete a user, if it exists, and close its connections."""
    store.execute("ACL", "DELUSER", user)


def disconnect(store: Store, user: str) -> None:
    """Close a user's connections, so that it has to log in again."""
    if user in users(store):  # the command fails for an unknown user
        store.execute("CLIENT", "KILL", "USER", user)


def users(store: Store) -> set[str]:
    return {name.decode() for name in store.execute("ACL", "USERS")}
