"""Locks that keep two starts out of one directory.

A lock is a file beside the directory, locked by `flock`. The kernel frees it when its holder ends,
however it ends, so a crash never blocks the next start. The file is removed with the last lock.
File systems without `flock` are refused: SQLite, and with it every run, needs locks as well.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from common.clock import format_time
from common.errors import RunError

_UNSUPPORTED = {errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL}
_READ_ONLY = {errno.EACCES, errno.EPERM, errno.EROFS}


@dataclass(frozen=True)
class Holder:
    """Process that holds a lock, as it describes itself in the file."""

    pid: int
    host: str
    since: float  # seconds since the epoch

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {format_time(self.since)}"


class StartLock:
    """Lock of one directory, held by one object at a time, or shared by several.

    Args:
        directory: The directory to make or to use.
        path: The lock file; by default `.NAME.lock` beside the directory.
    """

    def __init__(self, directory: Path, path: Path | None = None) -> None:
        self._directory = directory
        place = directory.resolve()  # the same for all names of a directory
        self.path = path or place.parent / f".{place.name}.lock"
        self._fd: int | None = None

    def acquire(self, *, shared: bool = False) -> None:
        """Take the lock at once. A shared lock excludes only those that are not shared.

        Where the file cannot be written, a shared lock does nothing: nobody can replace the
        directory there either.

        Raises:
            RunError: Another process holds it, or the file system refuses.
        """
        try:
            while self._fd is None:
                self._fd = self._try(fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        except OSError as error:
            if error.errno in _UNSUPPORTED:
                raise RunError(
                    f"the file system of {self.path} has no file locks (flock)",
                    "name a directory on a local disk",
                ) from None
            if not (shared and error.errno in _READ_ONLY):
                raise RunError(
                    f"{error.filename or self.path}: {error.strerror}", "name a writable place"
                ) from None
            return
        self._describe()

    def share(self) -> None:
        """Let others share the lock from now on; each replaces the description of its holder."""
        if self._fd is not None:
            fcntl.flock(self._fd, fcntl.LOCK_SH | fcntl.LOCK_NB)

    def release(self) -> None:
        """Free the lock; remove the file if nobody else shares it."""
        if self._fd is None:
            return
        fd, self._fd = self._fd, None
        with contextlib.suppress(OSError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.path.unlink(missing_ok=True)
        os.close(fd)

    def holder(self) -> Holder | None:
        """Return who took the lock last; None if that is not known."""
        try:
            fields = json.loads(self.path.read_bytes())
            return Holder(int(fields["pid"]), str(fields["host"])[:64], float(fields["since"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _try(self, kind: int) -> int | None:
        """Return the descriptor of the locked file; None if its name was removed meanwhile."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(fd, kind | fcntl.LOCK_NB)
            if _is_file(fd, self.path):
                return fd
        except BlockingIOError:
            error = self._taken(fd)
            os.close(fd)
            raise error from None
        except OSError:
            os.close(fd)
            raise
        os.close(fd)
        return None

    def _taken(self, fd: int) -> RunError:
        holder = self.holder()
        by = f" ({holder})" if holder else ""
        with contextlib.suppress(OSError):
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return RunError(
                f"{self._directory} is in use{by}", "end that process first, or use another one"
            )
        return RunError(
            f"another start is at work in {self._directory}{by}", "wait until it is done"
        )

    def _describe(self) -> None:
        assert self._fd is not None
        me = asdict(Holder(os.getpid(), socket.gethostname(), time.time()))
        with contextlib.suppress(OSError):  # a full disk must not stop what needs no more space
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, json.dumps(me).encode(), 0)


@contextmanager
def only_start(directory: Path, path: Path | None = None) -> Iterator[None]:
    """Keep other starts out of a directory while the block runs.

    Raises:
        RunError: Another start is at work there, or the file system refuses.
    """
    lock = StartLock(directory, path)
    lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _is_file(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False
