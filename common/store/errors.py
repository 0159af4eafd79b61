"""Translation of redis-py's errors: what was refused, where, and what to do about it."""

from __future__ import annotations

import redis

from common.errors import StoreAccessError, StoreError
from common.tls.verification import explain_tls_error


class StorePermissionError(StoreAccessError):
    """The store answers, and this user has no permission for the command."""


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
        case redis.ResponseError() if "maxmemory" in str(error):
            return StoreError(f"{what} is full", "raise its maxmemory")
        case redis.ResponseError() if "protected mode" in str(error):
            return StoreError(
                f"{what} is in protected mode and refuses other machines",
                "set up users or a password there, or connect from the same machine",
            )
        case redis.ResponseError():  # after a comma may follow arguments, also those of AUTH
            return StoreError(f"{what} refuses ({str(error).partition(',')[0][:120]})")
        case redis.BusyLoadingError():
            return StoreError(f"{what} is still loading", "wait until it is ready")
        case _:
            return StoreError(
                f"{what} does not answer ({type(error).__name__})",
                "start Redis there, or set store.url; a TLS port needs rediss:// in store.url",
            )
