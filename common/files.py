"""Durable file writes, which survive a power failure complete or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path


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
    """Append JSON lines, after cutting off an incomplete last line of an earlier crash."""
    lines = "".join(json.dumps(record, sort_keys=False) + "\n" for record in records)
    if not lines:
        return
    with path.open("ab+") as file:
        file.seek(0)
        whole = file.read().rfind(b"\n") + 1
        file.truncate(whole)
        file.seek(0, os.SEEK_END)
        file.write(lines.encode())


def read_jsonl(path: Path) -> list[dict[str, object]]:
    """Return the JSON lines of a file, without an incomplete last one; none if it is missing."""
    if not path.exists():
        return []
    whole, _, _ = path.read_text(encoding="utf-8").rpartition("\n")
    return [json.loads(line) for line in whole.splitlines() if line]
