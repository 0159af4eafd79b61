"""The two output streams of a command: no character and no full disk ends what it does.

A character that the terminal lacks is replaced. What cannot be written, because the reader of a
pipe has gone or a disk is full, is dropped: a run is not ended by its log.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import select
import sys
from typing import Any, TextIO

_GONE = (errno.EPIPE, errno.EIO, errno.ECONNRESET)  # no reader, or the terminal was closed


class _Forgiving(io.FileIO):
    """A descriptor to which writing never fails."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self.failed = False
        self.lost = False  # for another reason than that nobody reads it

    def write(self, data: Any, /) -> int:
        rest = memoryview(data).cast("B")
        nbytes = len(rest)
        try:
            while rest:
                written = super().write(rest)
                if written is None:  # the pipe is full, and somebody made it non-blocking
                    select.select([], [self.fileno()], [])
                rest = rest[written or 0 :]
        except OSError as error:
            self.failed = True
            self.lost = self.lost or error.errno not in _GONE
        return nbytes


def prepare() -> None:
    """Replace both streams of this process, unless somebody has put others there."""
    _open_missing()
    if sys.stdout is sys.__stdout__:
        sys.stdout = sys.__stdout__ = _replaced(sys.stdout)  # type: ignore[assignment, misc]
    if sys.stderr is sys.__stderr__:
        sys.stderr = sys.__stderr__ = _replaced(sys.stderr)  # type: ignore[assignment, misc]


def is_output_lost() -> bool:
    """Return whether standard output is incomplete for another reason than that nobody reads it."""
    raw = _flushed_output()
    return raw is not None and raw.lost


def has_reader() -> bool:
    """Return whether everything has been written: for answers that a program waits for."""
    raw = _flushed_output()
    return raw is None or not raw.failed


def _flushed_output() -> _Forgiving | None:
    if not isinstance(sys.__stdout__, io.TextIOWrapper):
        return None
    with contextlib.suppress(ValueError):  # closed
        sys.__stdout__.flush()
    raw = _raw(sys.__stdout__)
    return raw if isinstance(raw, _Forgiving) else None


def _raw(stream: io.TextIOWrapper) -> object:
    return getattr(stream.buffer, "raw", stream.buffer)  # without a buffer under PYTHONUNBUFFERED


def _open_missing() -> None:
    """Give closed standard descriptors a place, so that no file is opened in theirs."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one


def _replaced(stream: TextIO | None) -> TextIO | None:
    if not isinstance(stream, io.TextIOWrapper) or not isinstance(_raw(stream), io.FileIO):
        return stream
    stream.flush()
    raw = _Forgiving(stream.fileno())
    return io.TextIOWrapper(
        raw if _raw(stream) is stream.buffer else io.BufferedWriter(raw),
        encoding=stream.encoding,
        errors="replace",
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
