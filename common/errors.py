"""The tree of errors, rooted in `FcclError`.

Errors of libraries (pika, redis, sqlite, HTTP, pydantic) are translated into these where they
enter. The command line prints an error as one line and exits with the code of its class.
"""

from __future__ import annotations

from common.text import one_line

MAX_MESSAGE = 1500


class FcclError(Exception):
    """Base of every error that fccl raises on purpose: what went wrong where, and the remedy.

    Both may repeat foreign text, such as a key or a file name, so they are made one line of at
    most `MAX_MESSAGE` characters each.
    """

    exit_code = 1

    def __init__(self, what: str, remedy: str = "") -> None:
        self.what, self.remedy = _message(what), _message(remedy)
        super().__init__(f"{self.what}; {self.remedy}" if remedy else self.what)


def _message(text: str) -> str:
    line = one_line(text)
    return line if len(line) <= MAX_MESSAGE else f"{line[:MAX_MESSAGE]}…"


class ConfigError(FcclError):
    """A configuration key, an environment variable or an argument is wrong."""

    exit_code = 2


class UnknownKeyError(ConfigError):
    """A configuration has a key that this release does not know."""


class DataError(FcclError):
    """A data file is missing, empty or unreadable."""

    exit_code = 3


class ModelError(FcclError):
    """A base model cannot be found, made, fetched or used."""

    exit_code = 4


class BrokerError(FcclError):
    """The message broker refuses a request, or cannot be reached."""

    exit_code = 5


class BrokerLoginError(BrokerError):
    """The message broker refuses the user or the password."""


class StoreError(FcclError):
    """The Redis store refuses a request, or cannot be reached."""

    exit_code = 6


class StoreAccessError(StoreError):
    """The store refuses the user, the password, or the command."""


class RunError(FcclError):
    """A run directory cannot be started, continued or read."""

    exit_code = 7


class DiskError(RunError):
    """The disk refuses to read or write a file, for instance because it is full."""


class FencedError(FcclError):
    """Another coordinator took over this run; this one may write nothing more."""

    exit_code = 8


class JoinError(FcclError):
    """A join token, the name of a site or its credentials are refused."""

    exit_code = 9


class WireError(FcclError):
    """A message violates the protocol; it goes to the dead-letter queue with this reason."""
