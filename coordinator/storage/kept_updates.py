"""Kept updates: files of accepted updates after their commit, `updates/TASK.ATTEMPT`.

With `run.keep_updates` an update's frame stays on the disk, byte for byte as it was accepted, so
that `fccl verify` can recompute every version. With `aggregation.cache_updates` the newest one of
each client stays, because later versions need it. The transaction that applies an update also lists
its file in the table `kept_update`; only then the file moves here from the spool. A crash in
between leaves it in the spool, and the next start moves it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Set
from pathlib import Path

from common.disk_errors import disk_errors
from common.files import sync_path
from common.protocol.layout import TensorLayout
from common.protocol.tensors import Array
from coordinator.core.state import BufferedUpdate
from coordinator.storage.spool import RESUME, Spool, each_tensor_of

DIRECTORY = "updates"


def kept_file(update: BufferedUpdate) -> str:
    """Return the file name of an update: nothing in it comes from its sender."""
    return f"{update.task_id}.{update.attempt}"


class KeptUpdates:
    """Directory of the kept updates of one run; it exists once there is one.

    Call every method while holding the journal's write lock: an upload that has moved may arrive
    in the spool again.
    """

    def __init__(self, run: Path, spool: Spool) -> None:
        self._path, self._spool = run / DIRECTORY, spool

    def put(self, files: Mapping[str, str]) -> None:
        """Move uploads from the spool to their files; raise `DiskError` if the disk refuses."""
        with disk_errors(self._path, RESUME):
            self._path.mkdir(mode=0o700, exist_ok=True)
            for upload, file in files.items():
                self._spool.move(upload, self._path / file)
            sync_path(self._path)

    def roll_forward(self, files: Mapping[str, str]) -> None:
        """Move the uploads that a crash left in the spool; raise `DiskError` as `put` does.

        `files` holds all kept updates. The spool is swept afterwards.
        """
        left = {
            upload: files[upload]
            for upload in self._spool.uploads() & files.keys()
            if not (self._path / files[upload]).exists()  # else it has moved, and is sent again
        }
        if left:
            self.put(left)

    def each_tensor(
        self, update: BufferedUpdate, layout: TensorLayout
    ) -> Iterator[tuple[str, Array]]:
        """Yield names and decoded tensors of a kept update.

        Raises:
            RunError, WireError: Its file cannot be read, or is damaged.
        """
        yield from each_tensor_of(self._path / kept_file(update), update.upload, layout)

    def drop(self, files: Iterable[str]) -> None:
        """Remove files whose rows are gone; raise `DiskError` if the disk refuses."""
        with disk_errors(self._path, RESUME):
            for file in files:
                (self._path / file).unlink(missing_ok=True)

    def sweep(self, files: Set[str]) -> None:
        """Remove every file that is not in `files`."""
        self.drop({path.name for path in self._path.glob("*")} - files)
