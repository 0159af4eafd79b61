"""Errors of the disk, as the operating system, SQLite and safetensors report them.

Each becomes a `DiskError` that names the file, the cause and the remedy. Every operation on a file
that fccl writes for itself is inside a `disk_errors` block, or in a command whose last resort is
`translate` (`cli/expected_errors.py`).
"""

from __future__ import annotations

import errno
import os
import re
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common.errors import DiskError

_BY_ERRNO = {
    errno.ENOSPC: ("the disk is full", "make room"),
    errno.EDQUOT: ("the disk quota is used up", "make room, or raise the quota"),
    errno.EFBIG: ("the file is larger than the system permits", "raise `ulimit -f`"),
    errno.EROFS: ("the file system is read-only", "make it writable"),
    errno.EACCES: ("permission denied", "give this user access to it"),
    errno.EPERM: ("permission denied", "give this user access to it"),
    errno.EIO: ("input/output error", "check the disk"),
    errno.ESTALE: ("the network file system lost it", "mount the file system again"),
    errno.EMFILE: ("too many open files", "raise `ulimit -n`"),
    errno.ENOMEM: ("out of memory", "close other programs"),
    errno.ENFILE: ("too many open files in the system", "raise fs.file-max"),
}
_BY_SQLITE = {
    sqlite3.SQLITE_FULL: _BY_ERRNO[errno.ENOSPC],
    sqlite3.SQLITE_IOERR: ("input/output error", "check the disk, and that it is not full"),
    sqlite3.SQLITE_READONLY: (
        "the file or its folder is read-only",
        "make them writable for this user",
    ),
    sqlite3.SQLITE_CANTOPEN: ("it cannot be opened", "check its folder's permissions and space"),
    sqlite3.SQLITE_PERM: _BY_ERRNO[errno.EACCES],
    sqlite3.SQLITE_BUSY: ("another process keeps it locked", "end that process, or wait for it"),
    sqlite3.SQLITE_LOCKED: ("another process keeps it locked", "end that process, or wait for it"),
    sqlite3.SQLITE_CORRUPT: ("the database is damaged", "restore it from a backup"),
    sqlite3.SQLITE_NOTADB: ("it is no database", "restore it from a backup"),
}
_MISSING = {errno.ENOENT: ("it is missing", "restore it, or check the path")}
_BY_CLASS = {FileNotFoundError: errno.ENOENT, PermissionError: errno.EACCES}  # safetensors' own
_RUST_ERRNO = re.compile(r"\(os error (\d+)\)")


@contextmanager
def disk_errors(path: Path, then: str = "") -> Iterator[None]:
    """Raise `DiskError` where the disk, SQLite or safetensors refuse in the block.

    Args:
        path: The file or folder to name if the error names none.
        then: What to do after the remedy, such as "--resume".
    """
    try:
        yield
    except Exception as error:
        if (found := translate(error, path, then)) is None:
            raise
        raise found from None


def translate(error: BaseException, path: Path | None = None, then: str = "") -> DiskError | None:
    """Return the `DiskError` that explains an error; None if it has nothing to do with a file."""
    if isinstance(error, sqlite3.Error):
        code = _sqlite_code(error)
        if path is None and code not in _BY_SQLITE:  # a mistake of the program
            return None
        cause, remedy = _BY_SQLITE.get(code, (str(error), "check the disk, and the file"))
        return _error(path, cause, remedy, then)
    number = _errno(error)
    if number is None:
        if type(error).__name__ != "SafetensorError":
            return None
        return _error(path, f"it is damaged ({str(error)[:200]})", "restore it from a backup", then)
    if isinstance(error, OSError) and isinstance(error.filename, str | os.PathLike):
        path = Path(error.filename)
    if path is None and number not in _BY_ERRNO:
        return None
    cause, remedy = (_BY_ERRNO | _MISSING).get(number, (os.strerror(number), "check the path"))
    return _error(path, cause, remedy, then)


def describe(error: BaseException) -> str:
    """Return the cause of an error in a few words."""
    number = _errno(error)
    if number is None:
        return str(error)[:200]
    return _BY_ERRNO[number][0] if number in _BY_ERRNO else os.strerror(number)


def is_refusal(error: BaseException) -> bool:
    """Return whether the disk refused: an error that ends when somebody makes room or repairs it.

    A missing or damaged file is none.
    """
    if isinstance(error, sqlite3.Error):
        code = _sqlite_code(error)
        return code in _BY_SQLITE and code not in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
    return _errno(error) in _BY_ERRNO


def _sqlite_code(error: sqlite3.Error) -> int:
    return int(getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)) & 0xFF


def _errno(error: BaseException) -> int | None:
    """Return the number of an error about a file; safetensors has it in its text."""
    if isinstance(error, ConnectionError | TimeoutError | socket.gaierror):
        return None
    if isinstance(error, OSError):
        return error.errno or _BY_CLASS.get(type(error))
    if type(error).__name__ == "SafetensorError" and (found := _RUST_ERRNO.search(str(error))):
        return int(found[1])
    return None


def _error(path: Path | None, cause: str, remedy: str, then: str) -> DiskError:
    what = f"{path}: {cause}" if path is not None else f"a file cannot be used: {cause}"
    return DiskError(what, f"{remedy}, then {then}" if then else remedy)
