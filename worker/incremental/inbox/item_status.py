"""What has become of one item: looked up by the front door that put it into the inbox."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from worker.incremental.inbox import schema


@dataclass(frozen=True)
class ItemStatus:
    """Of an item.

    Attributes:
        state: See `schema`.
        reason: Why it was rejected; empty otherwise.
    """

    state: str
    reason: str

    @property
    def decided(self) -> bool:
        """Whether it waits no more."""
        return self.state != "waiting"

    @property
    def learned(self) -> bool:
        """Whether the client's model has it."""
        return self.state in ("learned", "settled")


def look(path: Path, key: str) -> ItemStatus | None:
    """What has become of an item by now.

    Args:
        path: Of the inbox.
        key: Of the item.

    Returns:
        None where the inbox has no such item: somebody has removed it.

    Raises:
        DataError: The inbox cannot be read.
    """
    with closing(schema.connect(path)) as db:
        try:
            row = db.execute("SELECT state, reason FROM item WHERE key = ?", (key,)).fetchone()
        except sqlite3.Error as error:
            raise schema.unusable(path, error) from None
    return ItemStatus(*row) if row else None
