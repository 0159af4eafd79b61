"""Ingestion of JSON lines into an inbox: each is accepted, a duplicate, or refused with a reason.

Nothing is dropped for want of room: when the inbox is full, or a minute's items have arrived, the
ingester waits and continues. Whatever was reported as accepted is on the disk.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import BinaryIO

from common.errors import DataError
from worker.incremental.inbox.inbox import (
    BatchTooLarge,
    Inbox,
    InboxFull,
    ItemResult,
    PutResult,
    RateLimited,
    item_results,
)
from worker.incremental.inbox.item_parser import ItemParser, parse_json
from worker.incremental.inbox.items import Item

FULL_S = 1.0  # between two attempts to store into a full inbox
CHUNK = 64  # lines of a file that are stored in one transaction


@dataclass(frozen=True)
class LineCounts:
    """Number of lines by outcome; `PutResult` explains the last two."""

    accepted: int = 0
    duplicate: int = 0
    refused: int = 0
    superseded: int = 0
    rejected: int = 0

    def add(self, results: Iterable[ItemResult], stored: PutResult) -> LineCounts:
        """Return the counts after some more lines, whose items came to `stored`."""
        states = Counter(each.state for each in results)
        return LineCounts(
            self.accepted + states["accepted"],
            self.duplicate + states["duplicate"],
            self.refused + states["refused"],
            self.superseded + stored.superseded,
            self.rejected + stored.rejected,
        )

    def text(self) -> str:
        """Return `3 accepted, 1 duplicate, 2 refused`, with explanations on lines of their own."""
        counts = (
            f"{self.accepted:,} accepted",
            f"{self.duplicate:,} duplicate" + "s" * (self.duplicate != 1),
            f"{self.refused:,} refused",
        )
        more = []
        if self.superseded:
            more.append(
                f"earlier items with another answer to the same input, now superseded:"
                f" {self.superseded:,}"
            )
        if self.rejected:
            more.append(
                f"duplicates of rejected items: {self.rejected:,}"
                " (`fccl inbox` shows the reasons; --retry lets them wait again)"
            )
        return "\n".join([", ".join(counts), *more])


def read_lines(stream: BinaryIO, limit: int) -> Iterator[tuple[int, bytes | None]]:
    """Yield numbered lines that are not blank; None stands for one of more than `limit` bytes."""
    number = 0
    while data := stream.readline(limit + 1):
        number += 1
        if len(data) > limit and not data.endswith(b"\n"):
            while (rest := stream.readline(limit)) and not rest.endswith(b"\n"):
                pass
            yield number, None
        elif data.strip():
            yield number, data


class Ingester:
    """Writer of lines into one client's inbox."""

    def __init__(
        self,
        inbox: Inbox,
        parser: ItemParser,
        on_result: Callable[[int, ItemResult], None],
        on_wait: Callable[[str], None],
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        """Store the arguments.

        `on_result` is called with the number and the result of each line, in order; `on_wait` with
        the reason of a wait, once for each kind of reason.
        """
        self._inbox, self._parser = inbox, parser
        self._on_result, self._on_wait, self._pause = on_result, on_wait, pause
        self._waited: set[type[DataError]] = set()
        self.counts = LineCounts()
        self.line = 0  # the first line whose result is unknown; 0 if there is none

    def ingest(self, source: Iterable[tuple[int, bytes | None]], chunk: int) -> None:
        """Store all lines, `chunk` of them at a time.

        Raises:
            DataError: The disk is full, or the file cannot be used; `line` and what follows was
                not stored.
        """
        rest = iter(source)
        while some := list(islice(rest, chunk)):
            self.line = some[0][0]
            self._ingest(some)

    def _ingest(self, some: Sequence[tuple[int, bytes | None]]) -> None:
        parsed = [self._parse(data) for _, data in some]
        stored = self._put([each for each in parsed if isinstance(each, Item)])
        self.line = 0
        results = item_results(parsed, stored)
        # Counted before they are reported, so that an interruption leaves the counts correct.
        self.counts = self.counts.add(results, sum(stored, PutResult()))
        for (number, _), result in zip(some, results, strict=True):
            self._on_result(number, result)

    def _parse(self, data: bytes | None) -> Item | DataError:
        try:
            if data is None:
                return DataError("longer than any item may be", "see incremental.max_chars")
            return self._parser.parse(parse_json(data.rstrip()))
        except DataError as error:
            return error

    def _put(self, items: Sequence[Item]) -> tuple[PutResult, ...]:
        while True:
            try:
                return self._inbox.put_each(items, "learn") if items else ()
            except BatchTooLarge:
                raise
            except RateLimited as error:
                self._wait(error, error.what, error.wait_s)
            except InboxFull as error:
                self._wait(error, str(error), FULL_S)

    def _wait(self, error: DataError, text: str, seconds: float) -> None:
        if type(error) not in self._waited:
            self._waited.add(type(error))
            self._on_wait(f"waiting, then continuing: {text}")
        self._pause(seconds)
