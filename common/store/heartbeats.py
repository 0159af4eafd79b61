"""Reading the heartbeats of a run, at a cost that no site controls.

A site may write any number of keys of any size under its own name. So no more is read than
`MAX_WORKERS_PER_SITE` heartbeats of a site and `MAX_WORKERS` of all, each no longer than a record
can be, and their sizes are known before any of them is read. Workers enter their ids into an index
of their site, a string with the newest names; those of earlier releases do not, and are found by
going through the keys of the server, `SCAN_KEYS` at a time.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import redis

from common.errors import WireError
from common.protocol.heartbeat import Heartbeat
from common.protocol.wire import MAX_HEADER, unpack

MAX_WORKERS_PER_SITE = 256
MAX_WORKERS = 4096
MAX_SITE_BYTES, MAX_BYTES = 1 << 20, 32 << 20
MAX_FRAME = MAX_HEADER + 64  # bytes of the longest record without data
MAX_INDEX = 65 * MAX_WORKERS_PER_SITE  # bytes; an id has 64 characters at most
SCAN_KEYS, SCAN_COUNT = 10_000, 1000
"""Keys of the server that one reading goes through, and those of one request."""
FLOOD_SHARE = 10
"""A reading goes through so many times fewer keys while a site floods the server."""
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}\Z")

Key = tuple[str, str]  # site, worker
T = TypeVar("T")


def heartbeat_key(run: str, site: str, worker: str) -> str:
    return f"fccl:{run}:heartbeat:{site}:{worker}"


def index_key(run: str, site: str) -> str:
    """Return the key of a site's index; a worker's id cannot be `:workers`."""
    return f"fccl:{run}:heartbeat:{site}::workers"


def add_to_index(index: bytes, worker: str) -> bytes | None:
    """Return an index with a worker as the newest; None if it is there already."""
    names = parse_index(index)
    if worker in names:
        return None
    return " ".join([worker, *names][:MAX_WORKERS_PER_SITE]).encode()


def parse_index(index: bytes) -> list[str]:
    """Return the ids of an index, which its site may have filled with anything."""
    names = index[:MAX_INDEX].decode("utf-8", "replace").split(" ")
    return [name for name in names[:MAX_WORKERS_PER_SITE] if _ID.match(name)]


class HeartbeatReader:
    """Reader of one run's heartbeats that remembers the workers which it has found.

    Attributes:
        crowded: Sites of which not all keys or bytes were read the last time.
    """

    def __init__(self, do: Callable[[Callable[[Any], Any]], Any], run: str) -> None:
        """Create a reader; `do` calls a function with the Redis client, and translates errors."""
        self._do, self._run = do, run
        self._cursor = 0
        self._found: dict[str, dict[str, None]] = {}  # workers by site, without an index
        self._counts: Counter[str] = Counter()  # keys of each site in this pass over all keys
        self._last_counts: Mapping[str, int] = {}  # in the one before
        self.crowded: frozenset[str] = frozenset()

    def read(self, sites: Iterable[str] = ()) -> tuple[Heartbeat, ...]:
        """Return the heartbeats of the live workers, by site and id.

        A heartbeat is a claim. One that does not parse, or names another site or worker than its
        key (the server's permissions hold each site to its keys), is left out.

        Args:
            sites: Sites whose index is read, besides those that have been found.
        """
        self._scan()
        names = self._named({*sites, *self._found})
        sizes = dict(zip(names, self._pipelined(self._each(names, "strlen")), strict=True))
        self._forget(key for key, size in sizes.items() if not size)
        chosen = self._within_limits({key: size for key, size in sizes.items() if size})
        values = self._pipelined(self._each(chosen, "getrange", 0, MAX_FRAME))
        beats = (_parse(key, value) for key, value in zip(chosen, values, strict=True))
        return tuple(beat for beat in beats if beat is not None)

    def _scan(self) -> None:
        """Go on with the search for workers that are in no index."""
        start = f"fccl:{self._run}:heartbeat:"

        def scan(r: Any) -> tuple[int, list[bytes]]:
            found: tuple[int, list[bytes]] = r.scan(self._cursor, f"{start}*", SCAN_COUNT)
            return found

        keys_at_once = SCAN_KEYS // FLOOD_SHARE if self.crowded else SCAN_KEYS
        for _ in range(max(1, keys_at_once // SCAN_COUNT)):
            self._cursor, keys = self._do(scan)
            for key in keys:
                self._note(key[len(start) : len(start) + 200].decode("utf-8", "replace"))
            if not self._cursor:
                self._last_counts, self._counts = self._counts, Counter()
                return

    def _note(self, name: str) -> None:
        site, _, worker = name.partition(":")
        if not _ID.match(site):
            return
        self._counts[site] += 1
        known = self._found.setdefault(site, {})
        if len(known) < MAX_WORKERS_PER_SITE and _ID.match(worker):
            known[worker] = None

    def _named(self, sites: Iterable[str]) -> list[Key]:
        """Return the workers to read, at most a fair share of them for each site."""
        asked = sorted(sites)
        share = max(1, min(MAX_WORKERS_PER_SITE, MAX_WORKERS // max(1, len(asked))))
        keys = [index_key(self._run, site) for site in asked]
        indexes = self._pipelined([("getrange", key, 0, MAX_INDEX) for key in keys])
        names: list[Key] = []
        crowded = set()
        for site, index in zip(asked, indexes, strict=True):
            known = dict.fromkeys([*parse_index(index or b""), *self._found.get(site, ())])
            names += [(site, worker) for worker in sorted(list(known)[:share])]
            count = max(self._counts[site], self._last_counts.get(site, 0))
            if count > MAX_WORKERS_PER_SITE + 1:  # the index is a key, too
                crowded.add(site)
        self.crowded = frozenset(crowded)
        return names

    def _within_limits(self, sizes: Mapping[Key, int]) -> list[Key]:
        """Return the keys to read: those that are not too long, up to the limit of each site."""
        sites = {site for site, _ in sizes}
        limit = min(MAX_SITE_BYTES, MAX_BYTES // max(1, len(sites)))
        used: Counter[str] = Counter()
        chosen = []
        for (site, worker), size in sizes.items():
            if size <= MAX_FRAME and used[site] + size <= limit:
                used[site] += size
                chosen.append((site, worker))
            else:
                self.crowded |= {site}
        return chosen

    def _forget(self, dead: Iterable[Key]) -> None:
        for site, worker in dead:
            if site in self._found:
                self._found[site].pop(worker, None)

    def _each(self, names: Iterable[Key], command: str, *more: int) -> list[tuple[Any, ...]]:
        return [(command, heartbeat_key(self._run, *name), *more) for name in names]

    def _pipelined(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Return the answers to some commands; None for a key that is no string."""

        def run(r: Any) -> list[Any]:
            with r.pipeline(transaction=False) as pipe:
                for name, *rest in commands:
                    getattr(pipe, name)(*rest)
                return list(pipe.execute(raise_on_error=False))

        answers = self._do(run) if commands else []
        return [_checked(self._do, answer) for answer in answers]


def _checked(do: Callable[[Callable[[Any], Any]], Any], answer: Any) -> Any:
    if not isinstance(answer, Exception):
        return answer
    if isinstance(answer, redis.ResponseError) and str(answer).startswith("WRONGTYPE"):
        return None

    def fail(_: Any) -> None:
        raise answer

    return do(fail)


def _parse(key: Key, value: bytes | None) -> Heartbeat | None:
    try:
        beat, _ = unpack(Heartbeat, value or b"")
    except WireError:
        return None
    return beat if (beat.site, beat.worker_id) == key else None
