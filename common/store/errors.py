"""Translation of redis-py's errors: what was refused, where, and what to do about it."""

from __future__ import annotations

import redis

from common.errors import StoreAccessError, StoreError
from common.tls.verification import explain_tls_error


class StorePermissionError(StoreAccessError):
    """The store answers, and this user has no permission for the command."""


_CLUSTER = (
    "is a node of a Redis Cluster, which fccl does not use",
    "set store.url to a Redis with `cluster-enabled no`",
)
_REPLICA = "is a read-only replica", "set store.url to its primary: INFO REPLICATION names it"
_FULL = "has reached its memory limit and takes no more data", "raise its maxmemory"
_SCRIPT = "is busy with a script", "wait, or end the script there with SCRIPT KILL"
_STATES = (  # of a server, by the class of redis-py's error
    (redis.exceptions.OutOfMemoryError, _FULL),
    (redis.exceptions.ReadOnlyError, _REPLICA),
    (
        redis.exceptions.MasterDownError,
        ("is a replica that has lost its primary", "start the primary, and set store.url to it"),
    ),
    (redis.exceptions.ClusterError, _CLUSTER),
    (redis.exceptions.AskError, _CLUSTER),  # also of MOVED
    (redis.exceptions.ClusterCrossSlotError, _CLUSTER),
    (redis.exceptions.TryAgainError, _CLUSTER),
    (redis.BusyLoadingError, ("is still loading its data", "wait until it is ready")),
)
_CODES = (  # likewise, by the beginning of an answer that has no class there
    (
        "MISCONF",
        (
            "cannot save its data to the disk and takes no writes",
            "make room for its `dir` and let it write there: its log has the cause",
        ),
    ),
    (
        "NOREPLICAS",
        (
            "takes no writes without enough replicas",
            "start its replicas, or lower min-replicas-to-write",
        ),
    ),
    ("BUSY", _SCRIPT),
    (
        "DENIED",
        (
            "is in protected mode and refuses other machines",
            "set up users or a password there, or connect from the same machine",
        ),
    ),
)


def explain_redis_error(error: redis.RedisError, where: str) -> StoreError:
    """Return the error to raise instead of redis-py's.

    The text of redis-py's own errors about connecting or logging in may repeat parts of a URL, and
    so a password; it is left out here.
    """
    what = f"the store at {where}"
    if tls := explain_tls_error(error, "store"):
        return StoreError(f"{what} {tls[0]}", tls[1])
    match error:
        case redis.AuthenticationError():
            return StoreAccessError(
                f"{what} refuses this user or password",
                "set store.url: redis://user:password@host:port/0",
            )
        case redis.exceptions.NoPermissionError():
            return StorePermissionError(
                f"{what} gives this user no permission ({str(error)[:120]})",
                "use the credentials that `fccl invite` made for this site",
            )
        case _ if found := _explain_state(error):
            return StoreError(f"{what} {found[0]}", found[1])
        case redis.ResponseError():  # after a comma may follow arguments, also those of AUTH
            return StoreError(f"{what} refuses ({str(error).partition(',')[0][:120]})")
        case _:
            return StoreError(
                f"{what} does not answer ({type(error).__name__})",
                "start Redis there, or set store.url; a TLS port needs rediss:// in store.url",
            )


def _explain_state(error: redis.RedisError) -> tuple[str, str] | None:
    """Return what an answer says about the state of the server, and the remedy."""
    answer = str(error).rpartition("caused error: ")[2]  # of a pipeline: behind the command
    for kind, found in _STATES:
        if isinstance(error, kind):
            return found
    for code, found in _CODES:
        if answer.startswith(code):
            return found
    return None
