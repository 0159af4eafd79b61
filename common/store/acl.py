"""Who may do what in Redis: the rules of an invited site, and of one that asks to join.

Rules are words of `ACL SETUSER`; they use nothing newer than Redis 7.0. Passwords are never in
them, only their SHA-256.
"""

from __future__ import annotations

from collections.abc import Iterable

from common.protocol.naming import runs_glob
from common.store.store import Store

_FRESH = ("reset", "on", "resetchannels", "-@all", "+ping", "+get", "+set", "+del", "+exists")
_CLOCK = "+time"


def site_rules(name: str, site: str, password_sha256: str) -> tuple[str, ...]:
    """A site reads what tasks name and what concerns itself; it writes its heartbeats.

    Args:
        name: Of the runs.
        site: Of the user.
        password_sha256: In hex.
    """
    runs = f"fccl:{runs_glob(name)}"
    readable = ("info", "version", "model", "blob:*", f"receipt:{site}:*", f"member:{site}:*")
    return (
        *(*_FRESH, _CLOCK, f"#{password_sha256}", f"%R~fccl:run:{name}"),
        *(f"%R~{runs}:{each}" for each in readable),
        f"%RW~{runs}:heartbeat:{site}:*",
    )


def join_rules(token_id: str, password_sha256: str, *, used: bool) -> tuple[str, ...]:
    """The holder of a token asks once, and reads the answer.

    Args:
        token_id: Of the token.
        password_sha256: Of its secret, in hex.
        used: Whether it was answered: then it may only read.
    """
    key = f"fccl:join:{token_id}"
    asks = () if used else (f"%W~{key}:request",)
    return (*_FRESH, _CLOCK, f"#{password_sha256}", f"%R~{key}:answer", *asks)


def grant(store: Store, user: str, rules: Iterable[str]) -> None:
    """Make a user, or replace all that it may do. What is connected as that user stays so.

    Raises:
        StoreError: Out of reach, or this connection may not make users.
    """
    store.execute("ACL", "SETUSER", user, *rules)


def revoke(store: Store, user: str) -> None:
    """Remove a user and end its connections; one that is not there is no error."""
    store.execute("ACL", "DELUSER", user)


def disconnect(store: Store, user: str) -> None:
    """End a user's connections: the next must log in anew."""
    if user in users(store):  # the command refuses a user that there is not
        store.execute("CLIENT", "KILL", "USER", user)


def users(store: Store) -> set[str]:
    """The names of all users."""
    return {name.decode() for name in store.execute("ACL", "USERS")}
