"""A boundary at which foreign bytes come in, and what may happen there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from common.errors import FcclError
from common.text import is_one_line

Reader = Callable[[bytes], object]
Mutator = Callable[[Random, bytes], bytes]
MAX_MESSAGE = 3010  # characters of an error, which is one line on a terminal


@dataclass(frozen=True)
class Target:
    """One boundary.

    Attributes:
        name: Name of its folder of cases, and its row of the table.
        make: Returns the reader; it gets an empty folder of its own, and may be slow.
        seeds: Valid inputs, which mutations start from.
        mutators: What changes an input; the first ones know its form.
        share: Share of the inputs, relative to the other targets.
    """

    name: str
    make: Callable[[Path], Reader]
    seeds: Callable[[], Sequence[bytes]]
    mutators: Sequence[Mutator]
    share: int = 10


class BadMessage(Exception):
    """Error of fccl whose message is not one short printable line."""


def attempt(reader: Reader, data: bytes) -> bool:
    """Return whether an input was accepted; False if it was refused in the proper way.

    Raises:
        BadMessage: It was refused with a message that no terminal should get.
        Exception: It was not refused in the proper way.
    """
    try:
        reader(data)
    except FcclError as error:
        check_message(str(error))
        return False
    return True


def check_message(text: str) -> None:
    if len(text) > MAX_MESSAGE:
        raise BadMessage(f"{len(text)} characters: {text[:80]!r}")
    if not is_one_line(text):
        raise BadMessage(f"more than one line of text: {text[:200]!r}")
