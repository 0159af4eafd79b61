"""Durable file writes, which survive a power failure complete or not at all, and private files.

Files and folders are for this user alone, whatever the umask: most hold rows, updates or texts.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from common.disk_errors import disk_errors

TAIL_BYTES = 1 << 13
"""Bytes that are read at a time from the end of a file of lines."""
_OTHERS = 0o077  # the permissions of everybody but the owner


def make_private(directory: Path) -> None:
    """Create a directory that only this user can enter, and every missing one above it likewise."""
    for missing in reversed([directory, *directory.parents]):
        if not missing.exists():
            missing.mkdir(mode=0o700, exist_ok=True)


def tighten(directory: Path) -> None:
    """Take the permissions of others from a directory of this user, which an old release left.

    It is done if the directory itself grants any, for everything in it.
    """
    found = directory.lstat()
    if found.st_uid != os.geteuid() or not found.st_mode & _OTHERS:
        return
    directory.chmod(found.st_mode & 0o700)  # first: nothing inside can be reached from now on
    for path in directory.rglob("*"):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode & 0o700)


def apply_umask(directory: Path) -> None:
    """Give a directory, and what is in it, the permissions that the umask of this process grants.

    Call it where no other thread creates files: the umask can be read only by setting it.
    """
    mask = os.umask(_OTHERS)
    os.umask(mask)
    for path in (directory, *directory.rglob("*")):
        if not path.is_symlink():
            path.chmod((0o777 if path.is_dir() else 0o666) & ~mask)


def private_opener(path: str, flags: int) -> int:
    """Open a file for `open(…, opener=private_opener)`; a new one is for this user alone."""
    return os.open(path, flags, 0o600)


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


def write_durable(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Write `path` so that after a crash it holds either its old content or all of `data`.

    The file has the permissions `mode`, less the umask, from its first byte on.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)  # a full disk needs its space
        raise
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

    Raises:
        DiskError: The disk refuses.
    """
    lines = "".join(json.dumps(record, sort_keys=False) + "\n" for record in records)
    if not lines:
        return
    with disk_errors(path), open(path, "ab+", opener=private_opener) as file:
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
    """Yield the JSON lines of a file, without an incomplete last one; none if it is missing.

    Raises:
        DiskError: The disk refuses.
        ValueError: A line is not JSON, or not UTF-8.
    """
    if not path.exists():
        return
    with disk_errors(path), path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n") and line.strip():
                yield json.loads(line)


def read_jsonl_backwards(path: Path) -> Iterator[dict[str, object]]:
    """Yield the JSON lines of a file, the last complete one first; none if it is missing.

    No more is read than the caller asks for, in blocks of `TAIL_BYTES`. Raises as `read_jsonl`.
    """
    if not path.exists():
        return
    with disk_errors(path), path.open("rb") as file:
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
