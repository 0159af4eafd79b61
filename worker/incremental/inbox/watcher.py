"""Detection of changed inboxes by two `stat` calls per client, without opening the files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

QUIET_S = 0.25  # after the last change: items that arrive together are learned together
POLL_S = 0.2  # shortest time between two polls of the disk, however often `changed` is called
PATIENCE_S = 2.0  # after the first change, even if more keep coming

_Mark = tuple[tuple[int, int], ...]


class InboxWatcher:
    """Watcher of the inboxes of some clients, whose files need not exist yet.

    An inbox that exists at the start counts as changed. The clock is monotonic, in seconds.
    """

    def __init__(self, paths: dict[str, Path], clock: Callable[[], float]) -> None:
        self._paths, self._clock = paths, clock
        self._seen: dict[str, _Mark] = {}
        self._read: dict[str, _Mark] = {}
        self._polled = -POLL_S
        self._since: dict[str, tuple[float, float]] = {}  # times of the first and the last change

    def changed(self) -> list[str]:
        """Return the clients whose inbox has changed and is quiet now, or keeps changing."""
        now, found = self._clock(), list[str]()
        if now - self._polled < POLL_S:
            return found
        self._polled = now
        for client, path in self._paths.items():
            mark = _mark(path)
            if not mark or mark == self._read.get(client):
                continue
            if mark != self._seen.get(client):
                first, _ = self._since.get(client, (now, now))
                self._seen[client], self._since[client] = mark, (first, now)
            first, last = self._since[client]
            if now - last >= QUIET_S or now - first >= PATIENCE_S:
                found.append(client)
        return found

    def mark_read(self, client: str) -> None:
        """Record that the inbox, as it is now, has been processed."""
        self._read[client] = _mark(self._paths[client])
        self._since.pop(client, None)

    def any_exists(self) -> bool:
        return any(path.exists() for path in self._paths.values())


def _mark(path: Path) -> _Mark:
    """Return a value that changes with every write, also while it is only in the WAL file."""
    marks = []
    for file in (path, path.with_name(path.name + "-wal")):
        try:
            found = file.stat()
        except FileNotFoundError:
            continue
        marks.append((found.st_mtime_ns, found.st_size))
    return tuple(marks)
