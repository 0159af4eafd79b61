"""A disk that refuses: the n-th operation on the files below a folder fails, as errno says."""

from __future__ import annotations

import builtins
import errno
import io
import os
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from safetensors import SafetensorError

from coordinator.storage import versions

REFUSALS = (errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EIO)
_SQLITE = {
    errno.ENOSPC: (sqlite3.SQLITE_FULL, "database or disk is full"),
    errno.EROFS: (sqlite3.SQLITE_READONLY, "attempt to write a readonly database"),
    errno.EACCES: (sqlite3.SQLITE_CANTOPEN, "unable to open database file"),
    errno.EIO: (sqlite3.SQLITE_IOERR, "disk I/O error"),
}
_BY_PATH = ("open", "mkdir", "replace", "rename", "unlink", "listdir", "scandir", "chmod")
_BY_DESCRIPTOR = ("fsync", "fdatasync", "pwrite", "ftruncate")


@dataclass
class FailingDisk:
    """Operations below `root`, counted; those from `first` on fail.

    Only those count whose description (`open /path`) contains `only`.
    """

    root: Path
    number: int = errno.ENOSPC
    first: int = -1
    only: str = ""
    operations: int = 0
    failures: int = 0

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Replace the functions of Python by which files are used, until the test's undo."""
        for name in _BY_PATH:
            monkeypatch.setattr(os, name, self._by_path(name, getattr(os, name)))
        for name in _BY_DESCRIPTOR:
            monkeypatch.setattr(os, name, self._by_descriptor(name, getattr(os, name)))
        opened = self._by_path("open", io.open)
        monkeypatch.setattr(io, "open", opened)
        monkeypatch.setattr(builtins, "open", opened)
        monkeypatch.setattr(versions, "save_file", self._saving(versions.save_file))
        monkeypatch.setattr(sqlite3, "connect", self._connecting(sqlite3.connect))

    def _by_path(self, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def checked(path: Any = ".", *args: Any, **kwargs: Any) -> Any:
            if isinstance(path, str | os.PathLike) and self._fails(name, os.fspath(path)):
                raise OSError(self.number, os.strerror(self.number), os.fspath(path))
            return original(path, *args, **kwargs)

        return checked

    def _by_descriptor(self, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def checked(descriptor: int, *args: Any) -> Any:
            if self._fails(name, str(Path(f"/proc/self/fd/{descriptor}").readlink())):
                raise OSError(self.number, os.strerror(self.number))
            return original(descriptor, *args)

        return checked

    def _saving(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def checked(tensors: Any, path: Path, **kwargs: Any) -> None:
            if self._fails("save", str(path)):
                text = f"I/O error: {os.strerror(self.number)} (os error {self.number})"
                raise SafetensorError(text)
            original(tensors, path, **kwargs)

        return checked

    def _connecting(self, original: Callable[..., Any]) -> Callable[..., Any]:
        disk = self

        class Connection(sqlite3.Connection):
            path = ""

            def execute(self, *args: Any) -> sqlite3.Cursor:
                disk._check_database(self.path)
                return super().execute(*args)

            def executemany(self, *args: Any) -> sqlite3.Cursor:
                disk._check_database(self.path)
                return super().executemany(*args)

        def connect(path: Any, *args: Any, **kwargs: Any) -> sqlite3.Connection:
            self._check_database(str(path))
            connection: Connection = original(path, *args, **{"factory": Connection, **kwargs})
            connection.path = str(path)
            return connection

        return connect

    def _check_database(self, path: str) -> None:
        if self._fails("sqlite", path):
            code, text = _SQLITE[self.number]
            error = sqlite3.OperationalError(text)
            error.sqlite_errorcode = code
            raise error

    def _fails(self, name: str, path: str) -> bool:
        if str(self.root) not in path or self.only not in f"{name} {path}":
            return False
        self.operations += 1
        fails = 0 <= self.first < self.operations
        self.failures += fails
        return fails
