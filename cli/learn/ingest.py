"""Lines of JSON into an inbox: each is taken, known already, or refused with its number and reason.

Nothing is dropped for want of room: where the inbox is full, or a minute's items have come, the
feeder waits and goes on. Whatever was told as accepted is on the disk.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import BinaryIO, Literal

from common.errors import DataError
from worker.incremental.inbox.inbox import BatchTooLarge, Inbox, InboxFull, PutResult, RateLimited
from worker.incremental.inbox.item_parser import ItemParser, parse_json
from worker.incremental.inbox.items import Item

FULL_S = 1.0  # between two looks whether there is room in a full inbox
CHUNK = 64  # lines of a file that are made durable together

LineState = Literal["accepted", "duplicate", "refused"]
REJECTED = "it was rejected before"


@dataclass(frozen=True)
class LineResult:
    """What became of a line.

    Attributes:
        line: Its number, from 1.
        state: `accepted` is on the disk; `duplicate` is in the inbox already.
        reason: Of a refusal, or what is to be known of a duplicate. Never its text.
    """

    line: int
    state: LineState
    reason: str = ""


@dataclass(frozen=True)
class LineCounts:
    """How many lines came to what; see `PutResult` for the last two."""

    accepted: int = 0
    duplicate: int = 0
    refused: int = 0
    superseded: int = 0
    rejected: int = 0

    def after(self, outcomes: Iterable[LineResult], taken: PutResult) -> LineCounts:
        """With some more, whose items came to `taken`."""
        states = Counter(each.state for each in outcomes)
        return LineCounts(
            self.accepted + states["accepted"],
            self.duplicate + states["duplicate"],
            self.refused + states["refused"],
            self.superseded + taken.superseded,
            self.rejected + taken.rejected,
        )

    def text(self) -> str:
        """`3 accepted, 1 duplicate, 2 refused`, and what follows from it, a sentence a line."""
        counts = (
            f"{self.accepted:,} accepted",
            f"{self.duplicate:,} duplicate" + "s" * (self.duplicate != 1),
            f"{self.refused:,} refused",
        )
        more = []
        if self.superseded:
            more.append(
                f"earlier items that say otherwise of the same input, not learned any more:"
                f" {self.superseded:,}"
            )
        if self.rejected:
            more.append(
                f"duplicates of rejected items: {self.rejected:,}"
                " (`fccl inbox` has the reasons; --retry lets them wait again)"
            )
        return "\n".join([", ".join(counts), *more])


def line_result(taken: PutResult, line: int) -> LineResult:
    """Of a line whose item was put."""
    if taken.new:
        return LineResult(line, "accepted")
    return LineResult(line, "duplicate", REJECTED if taken.rejected else "")


def read_lines(stream: BinaryIO, limit: int) -> Iterator[tuple[int, bytes | None]]:
    """Numbered lines that are not blank; None for one of more than `limit` bytes, which is skipped.

    A last line without its end is a line.
    """
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
    """Feeds one client's inbox."""

    def __init__(
        self,
        inbox: Inbox,
        intake: ItemParser,
        told: Callable[[LineResult], None],
        said: Callable[[str], None],
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        """Nothing is fed yet.

        Args:
            inbox: Where to.
            intake: What it takes.
            told: What became of each line, in their order.
            said: Told once of each thing that is waited for.
            pause: Waits so many seconds.
        """
        self._inbox, self._intake = inbox, intake
        self._told, self._said, self._pause = told, said, pause
        self._waited: set[type[DataError]] = set()
        self.tally = LineCounts()
        self.line = 0
        """The first line of which nothing is known yet; 0 where there is none."""

    def feed(self, source: Iterable[tuple[int, bytes | None]], chunk: int) -> None:
        """Put all lines, so many at a time.

        Raises:
            DataError: The disk is full, or the file cannot be used; `line` and what follows was
                not taken.
        """
        each = iter(source)
        while some := list(islice(each, chunk)):
            self.line = some[0][0]
            self._feed(some)

    def _feed(self, some: Sequence[tuple[int, bytes | None]]) -> None:
        read = [(number, self._read(data)) for number, data in some]
        taken = self._put([found for _, found in read if isinstance(found, Item)])
        self.line = 0
        rest = iter(taken)
        outcomes = [
            line_result(next(rest), number)
            if isinstance(found, Item)
            else LineResult(number, "refused", str(found))
            for number, found in read
        ]
        # Counted before they are told: an interruption while telling changes nothing of the sum.
        self.tally = self.tally.after(outcomes, sum(taken, PutResult()))
        for each in outcomes:
            self._told(each)

    def _read(self, data: bytes | None) -> Item | DataError:
        try:
            if data is None:
                return DataError("it is longer than any item may be", "incremental.max_chars")
            return self._intake.item(parse_json(data.rstrip()))
        except DataError as reason:
            return reason

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
            self._said(f"waits, and goes on by itself: {text}")
        self._pause(seconds)
