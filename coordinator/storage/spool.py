"""Spool: updates on the coordinator's disk, from their first chunk until their commit.

A file is named by its site and the SHA-256 that its sender claims, and each chunk is written at its
offset. A file is never renamed, so an acked chunk always has a file, and no site can write into
another's. At the start, files without a row in the journal are removed.

On an update's path `coordinator/ingest/ingest.py` writes here; the next file is
`coordinator/core/machine.py`. `coordinator/storage/commit.py` reads the deltas later.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Set
from pathlib import Path

from common.disk_errors import disk_errors
from common.errors import WireError
from common.files import make_private, sync_path, write_at
from common.protocol import codec
from common.protocol.layout import TensorLayout
from common.protocol.tensor_table import layout_of
from common.protocol.tensors import Array, Tensors
from common.protocol.updates import Update
from common.protocol.wire import unpack

RESUME = "--resume"


def decode_delta(update: Update, data: memoryview, layout: TensorLayout) -> Tensors:
    """Return the tensors of an update of either schema.

    Raises:
        WireError: The tensors have another layout, or the data is damaged.
    """
    _check_layout(update, layout)
    return codec.decode(update.codec, layout, data)


def decode_each_delta(
    update: Update, data: memoryview, layout: TensorLayout
) -> Iterator[tuple[str, Array]]:
    """Yield names and tensors of an update, one by one; raise as `decode_delta` does."""
    _check_layout(update, layout)
    yield from codec.decode_each(update.codec, layout, data)


def _check_layout(update: Update, layout: TensorLayout) -> None:
    table = update.tensors
    claimed = update.layout if table is None else layout_of(update.codec, table).digest
    if claimed != layout.digest:
        raise WireError("names or shapes of the update's tensors differ from the adapter's")


def _check_digest(upload: str, frame: bytes | memoryview) -> None:
    if codec.digest(frame) != upload.rpartition(".")[2]:
        raise WireError("the update's bytes do not have the SHA-256 that its chunks claim")


def each_tensor_of(
    path: Path, upload: str, layout: TensorLayout, *, check: bool = True
) -> Iterator[tuple[str, Array]]:
    """Yield names and decoded tensors of the file of an upload; see `Spool.each_tensor`."""
    with disk_errors(path, RESUME), path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    frame = memoryview(mapped)
    if check:
        _check_digest(upload, frame)
    yield from decode_each_delta(*unpack(Update, frame), layout)


def upload_name(site: str, sha256: str) -> str:
    """Return the file name of an upload; site names contain no dot."""
    return f"{site}.{sha256}"


class Spool:
    """Spool directory of one run."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, upload: str, offset: int, data: bytes) -> None:
        """Write a chunk at its offset in bytes, and return once it is on the disk.

        Raises:
            RunError: The disk refused, for instance because it is full.
        """
        path = self._path / upload
        with disk_errors(path, RESUME):
            fresh = not path.exists()
            make_private(self._path)
            write_at(path, offset, data)
            if fresh:
                sync_path(self._path)

    def frame(self, upload: str) -> bytes:
        """Return the bytes of a complete update after a check of its digest.

        Raises:
            WireError: Its bytes do not have the digest that its sender claimed.
            RunError: The file cannot be read.
        """
        path = self._path / upload
        with disk_errors(path, RESUME):
            frame = path.read_bytes()
        _check_digest(upload, frame)
        return frame

    def delta(self, upload: str, layout: TensorLayout) -> Tensors:
        """Return the decoded tensors of an accepted update; raise as `frame` does."""
        update, data = unpack(Update, self.frame(upload))
        return decode_delta(update, data, layout)

    def tensors(self, upload: str, layout: TensorLayout) -> Iterator[Array]:
        """Yield the decoded tensors of an accepted update; see `each_tensor`."""
        for _, tensor in self.each_tensor(upload, layout, check=False):
            yield tensor

    def each_tensor(
        self, upload: str, layout: TensorLayout, *, check: bool = True
    ) -> Iterator[tuple[str, Array]]:
        """Yield names and decoded tensors of an accepted update, without reading it as a whole.

        Raises:
            RunError, WireError: The file cannot be read, or is damaged; its digest is compared
                before the first tensor if `check` is set.
        """
        yield from each_tensor_of(self._path / upload, upload, layout, check=check)

    def holds(self, upload: str) -> bool:
        """Return whether there is a file of an upload."""
        return (self._path / upload).exists()

    def uploads(self) -> set[str]:
        """Return the names of all files."""
        with disk_errors(self._path, RESUME):  # none while there is no directory yet
            return {path.name for path in self._path.glob("*")}

    def move(self, upload: str, target: Path) -> None:
        """Give the file of an upload another place; raise `OSError` if the disk refuses."""
        (self._path / upload).replace(target)

    def drop(self, upload: str) -> None:
        path = self._path / upload
        with disk_errors(path, RESUME):
            path.unlink(missing_ok=True)

    def sweep(self, known: Set[str]) -> None:
        """Remove every file whose upload is not in `known`."""
        with disk_errors(self._path, RESUME):
            for path in self._path.glob("*"):  # empty while there is no directory yet
                if path.name not in known:
                    path.unlink()
