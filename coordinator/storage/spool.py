"""Updates on the coordinator's disk, from their first chunk until their commit.

A file is named by its site and the SHA-256 that its sender claims, and chunks are written at their
place in it. It is never renamed, so there is no moment at which an acked chunk has no file; no site
can write into another's. What no journal row refers to is removed at the start.
"""

from __future__ import annotations

from collections.abc import Set
from pathlib import Path

from common.errors import RunError, WireError
from common.files import sync_path, write_at
from common.protocol import codec
from common.protocol.tensors import Tensors
from common.protocol.updates import Update
from common.protocol.wire import unpack


def upload_name(site: str, sha256: str) -> str:
    """The file of an upload: both parts are checked labels, and site names hold no dot."""
    return f"{site}.{sha256}"


class Spool:
    """The spool directory of one run."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.mkdir(parents=True, exist_ok=True)

    def write(self, upload: str, offset: int, data: bytes) -> None:
        """Put a chunk at its place; returns once it is on the disk.

        Args:
            upload: From `upload_name`.
            offset: Bytes from its start.
            data: The chunk.

        Raises:
            RunError: The disk refused, e.g. because it is full.
        """
        path = self._file(upload)
        fresh = not path.exists()
        try:
            write_at(path, offset, data)
            if fresh:
                sync_path(self._path)
        except OSError as error:
            raise RunError(f"{path}: {error.strerror}", "make room, then --resume") from None

    def frame(self, upload: str) -> bytes:
        """The whole update, verified.

        Raises:
            WireError: Its bytes do not have the digest that was claimed.
            RunError: It cannot be read.
        """
        try:
            frame = self._file(upload).read_bytes()
        except OSError as error:
            raise RunError(f"{self._file(upload)}: {error.strerror}", "restore the run") from None
        if codec.digest(frame) != upload.rpartition(".")[2]:
            raise WireError("the update's bytes do not have the SHA-256 that its chunks claim")
        return frame

    def delta(self, upload: str) -> Tensors:
        """The decoded tensors of an accepted update.

        Raises:
            WireError: The file is no update.
            RunError: It cannot be read.
        """
        update, data = unpack(Update, self.frame(upload))
        return codec.decode(update.codec, update.tensors, data)

    def drop(self, upload: str) -> None:
        """Remove an update that is applied, or came to nothing."""
        self._file(upload).unlink(missing_ok=True)

    def sweep(self, known: Set[str]) -> None:
        """Remove every file that no journal row refers to."""
        for path in self._path.iterdir():
            if path.name not in known:
                path.unlink()

    def _file(self, upload: str) -> Path:
        return self._path / upload
