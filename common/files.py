"""Durable file writes, which survive a power failure complete or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

TAIL_BYTES = 1 << 13
"""Bytes that are read at a time from the end of a file of lines."""


def sync_path(path: Path) -> None:
    """Make the bytes of a file, or the entries of a directory (new names, renames), durable."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_tree(path: Path) -> None:
    """Make every file and directory under `path` durable."""
    for directory, _, names in os.walk(path):
        for name in names:
            sync_path(Path(directory) / name)
        sync_path(Path(directory))


def write_durable(path: Path, data: bytes, mode: int = 0o666) -> None:
    """Write `path` so that after a crash it holds either its old content or all of `data`.

    The file has the permissions `mode`, less the umask, from its first byte on: 0o600 for a secret.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.unlink(missing_ok=True)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_path(path.parent)


def write_at(path: Path, offset: int, data: bytes) -> None:
    """Write `data` at `offset` of `path`, created if missing; return once it is on the disk."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        view = memoryview(data)
        while view:
            written = os.pwrite(fd, view, offset)
            view, offset = view[written:], offset + written
        os.fdatasync(fd)
    finally:
        os.close(fd)


def append_jsonl(path: Path, records: Iterable[Mapping[str, object]]) -> None:
    """Append JSON lines, after cutting off an incomplete last line of an earlier crash.

    What is in the file is not read, except for the end of its last line.
    """
    lines = "".join(json.dumps(record, sort_keys=False) + "\n" for record in records)
    if not lines:
        return
    with path.open("ab+") as file:
        file.truncate(end_of_lines(file))
        file.seek(0, os.SEEK_END)
        file.write(lines.encode())


def end_of_lines(file: BinaryIO) -> int:
    """Return the offset behind the last line break of a file; 0 if it has none."""
    end = file.seek(0, os.SEEK_END)
    while end:
        start = max(0, end - TAIL_BYTES)
        file.seek(start)
        found = file.read(end - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0


def read_jsonl(path: Path) -> Iterator[dict[str, object]]:
    """Yield the JSON lines of a file, without an incomplete last one; none if it is missing."""
    if not path.exists():
        return
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n") and line.strip():
                yield json.loads(line)


def read_jsonl_backwards(path: Path) -> Iterator[dict[str, object]]:
    """Yield the JSON lines of a file, the last complete one first; none if it is missing.

    No more is read than the caller asks for, in blocks of `TAIL_BYTES`.
    """
    if not path.exists():
        return
    with path.open("rb") as file:
        start = end_of_lines(file)
        rest = b""
        while start:
            begin = max(0, start - TAIL_BYTES)
            file.seek(begin)
            first, *lines = (file.read(start - begin) + rest).split(b"\n")
            yield from (json.loads(line) for line in reversed(lines) if line.strip())
            start, rest = begin, first
        if rest.strip():
            yield json.loads(rest)
