"""Notices that an inbox has changed, without opening it: a look costs two `stat` a client."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

QUIET_S = 0.25  # after the last item: what comes together is learned together
LOOK_S = 0.2  # between two looks, however often it is asked
PATIENCE_S = 2.0  # after the first one, however many follow

_Mark = tuple[tuple[int, int], ...]


class InboxWatcher:
    """The inboxes of some clients."""

    def __init__(self, paths: dict[str, Path], clock: Callable[[], float]) -> None:
        """Every inbox that is there already is due once.

        Args:
            paths: Of the inboxes, which may not exist yet, by client.
            clock: Monotonic, in seconds.
        """
        self._paths, self._clock = paths, clock
        self._seen: dict[str, _Mark] = {}
        self._done: dict[str, _Mark] = {}
        self._looked = -LOOK_S
        self._since: dict[str, tuple[float, float]] = {}  # first and last change

    def due(self) -> list[str]:
        """Clients whose inbox has changed and is quiet again, or has changed for long."""
        now, found = self._clock(), list[str]()
        if now - self._looked < LOOK_S:
            return found
        self._looked = now
        for client, path in self._paths.items():
            mark = _mark(path)
            if not mark or mark == self._done.get(client):
                continue
            if mark != self._seen.get(client):
                first, _ = self._since.get(client, (now, now))
                self._seen[client], self._since[client] = mark, (first, now)
            first, last = self._since[client]
            if now - last >= QUIET_S or now - first >= PATIENCE_S:
                found.append(client)
        return found

    def done(self, client: str) -> None:
        """Its inbox was looked into, and what it is now need not be looked into again."""
        self._done[client] = _mark(self._paths[client])
        self._since.pop(client, None)

    def there(self) -> list[str]:
        """Clients that have an inbox."""
        return [client for client, path in self._paths.items() if path.exists()]


def _mark(path: Path) -> _Mark:
    """Changes with every write, whether it is in the file yet or still in its log."""
    marks = []
    for each in (path, path.with_name(path.name + "-wal")):
        try:
            found = each.stat()
        except FileNotFoundError:
            continue
        marks.append((found.st_mtime_ns, found.st_size))
    return tuple(marks)
