"""Spool of a simulated run: updates wait for their commit in memory, not on the disk."""

from __future__ import annotations

from collections.abc import Iterator, Set
from pathlib import Path

from common.errors import RunError
from common.files import private_opener
from common.protocol import codec
from common.protocol.layout import TensorLayout
from common.protocol.tensors import Array
from common.protocol.updates import Update
from common.protocol.wire import unpack
from coordinator.storage.spool import Spool, decode_delta


class MemorySpool(Spool):
    """Spool whose files are kept in memory; those that are moved go to the disk."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._frames: dict[str, bytes] = {}

    def put(self, upload: str, frame: bytes) -> None:
        """Keep a complete update."""
        self._frames[upload] = frame

    def write(self, upload: str, offset: int, data: bytes) -> None:
        if offset:
            raise RunError("an update of a simulated run comes in one piece", "report this")
        self.put(upload, data)

    def frame(self, upload: str) -> bytes:
        if upload not in self._frames:
            raise RunError(f"the update {upload} is gone", "report this")
        return self._frames[upload]

    def each_tensor(
        self, upload: str, layout: TensorLayout, *, check: bool = True
    ) -> Iterator[tuple[str, Array]]:
        update, data = unpack(Update, self.frame(upload))
        if update.layout == layout.digest:
            yield from codec.decode_each(update.codec, layout, data)
        else:
            yield from decode_delta(update, data, layout).items()

    def holds(self, upload: str) -> bool:
        return upload in self._frames

    def uploads(self) -> set[str]:
        return set(self._frames)

    def move(self, upload: str, target: Path) -> None:
        with open(target, "wb", opener=private_opener) as file:
            file.write(self._frames.pop(upload))

    def drop(self, upload: str) -> None:
        self._frames.pop(upload, None)

    def sweep(self, known: Set[str]) -> None:
        for upload in self._frames.keys() - known:
            del self._frames[upload]
