"""Persistent mapping that iterates in the order of insertion, as a dict does.

A change copies a chunk of `CHUNK` entries and the table of chunks, so it costs microseconds with
100,000 entries. A map knows the keys of the last few changes that made it; compared with a map of
another origin, chunks that both share are skipped.
"""

from __future__ import annotations

from collections.abc import ItemsView, Iterable, Iterator, Mapping, Sequence, ValuesView
from itertools import chain
from typing import Any, Generic, TypeVar, cast

from immutables import Map

K = TypeVar("K")
V = TypeVar("V")

CHUNK = 128  # entries
MAX_CHANGES = 512  # of which a map knows the keys
_NO_ENTRIES: dict[Any, Any] = {}


class OrderedMap(Mapping[K, V], Generic[K, V]):
    """Immutable mapping; a key that is set again keeps its place."""

    __slots__ = ("_change", "_chunks", "_next", "_places")

    def __init__(self, entries: Mapping[K, V] | Iterable[tuple[K, V]] = ()) -> None:
        entries = dict(entries)
        keys = list(entries)
        self._places: Map[K, int] = Map(zip(keys, range(len(keys)), strict=True))
        self._chunks: dict[int, dict[K, V]] = {
            start // CHUNK: {key: entries[key] for key in keys[start : start + CHUNK]}
            for start in range(0, len(keys), CHUNK)
        }
        self._next = len(keys)
        self._change = _Change[K]((), None)

    @classmethod
    def of(cls, mapping: Mapping[K, V]) -> OrderedMap[K, V]:
        """Return a mapping as an ordered map; one that is one already, itself."""
        return mapping if isinstance(mapping, OrderedMap) else cls(mapping)

    def put(self, key: K, value: V) -> OrderedMap[K, V]:
        """Return the map with one entry added or replaced."""
        return self.update(((key, value),))

    def update(self, entries: Iterable[tuple[K, V]]) -> OrderedMap[K, V]:
        """Return the map with entries added or replaced."""
        chunks, places, following = dict(self._chunks), self._places, self._next
        own, keys = set[int](), list[K]()
        for key, value in entries:
            place = places.get(key)
            if place is None:
                place, following = following, following + 1
                places = places.set(key, place)
            number = place // CHUNK
            if number not in own:
                own.add(number)
                chunks[number] = dict(chunks.get(number, ()))
            chunks[number][key] = value
            keys.append(key)
        return self._with(chunks, places, following, keys)

    def remove(self, key: K) -> OrderedMap[K, V]:
        """Return the map without a key; itself, if it does not have it."""
        place = self._places.get(key)
        if place is None:
            return self
        number, chunks = place // CHUNK, dict(self._chunks)
        chunk = dict(chunks[number])
        del chunk[key]
        if chunk:
            chunks[number] = chunk
        else:
            del chunks[number]
        return self._with(chunks, self._places.delete(key), self._next, [key])

    def place(self, key: K) -> int:
        """Return a number that is larger for keys that come later."""
        return self._places[key]

    def changes_since(self, before: OrderedMap[K, V]) -> tuple[list[K], list[K]]:
        """Return the keys with another value than `before` had, or none; and those removed since.

        Values are compared by identity. Both lists are in the order of the maps.
        """
        keys = self._change.keys_since(before._change)
        if keys is None:
            keys = self._keys_unlike(before) | before._keys_unlike(self)
        changed = [key for key in keys if key in self and before.get(key) is not self[key]]
        removed = [key for key in keys if key in before and key not in self]
        return sorted(changed, key=self.place), sorted(removed, key=before.place)

    def _keys_unlike(self, other: OrderedMap[K, V]) -> set[K]:
        """Return the keys with another value than in the same chunk of the other map."""
        keys = set[K]()
        for number, chunk in self._chunks.items():
            its = other._chunks.get(number, _NO_ENTRIES)
            if chunk is not its:
                keys |= {key for key, value in chunk.items() if its.get(key) is not value}
        return keys

    def __getitem__(self, key: K) -> V:
        return self._chunks[self._places[key] // CHUNK][key]

    def get(self, key: K, default: V | None = None) -> V | None:  # type: ignore[override]
        place = self._places.get(key)
        return default if place is None else self._chunks[place // CHUNK][key]

    def __contains__(self, key: object) -> bool:
        return key in self._places

    def __iter__(self) -> Iterator[K]:
        return chain.from_iterable(self._chunks.values())

    def __len__(self) -> int:
        return len(self._places)

    def values(self) -> ValuesView[V]:
        return _Values(self)

    def items(self) -> ItemsView[K, V]:
        return _Items(self)

    def __repr__(self) -> str:
        return f"OrderedMap({dict(self.items())!r})"

    def _with(
        self,
        chunks: dict[int, dict[K, V]],
        places: Map[K, int],
        following: int,
        keys: Sequence[K],
    ) -> OrderedMap[K, V]:
        made = cast(OrderedMap[K, V], object.__new__(OrderedMap))
        made._change = _Change(keys, self._change)
        made._chunks, made._places, made._next = chunks, places, following
        return made


class _Change(Generic[K]):
    """Keys of one change, and the change before it, as far as that is known."""

    __slots__ = ("_before", "_depth", "_keys")
    _depth: int

    def __init__(self, keys: Sequence[K], before: _Change[K] | None) -> None:
        depth = 0 if before is None else before._depth + 1
        known = depth < MAX_CHANGES and len(keys) < 4 * MAX_CHANGES
        self._keys, self._before = keys, before if known else None
        self._depth = depth if known else 0

    def keys_since(self, earlier: _Change[K]) -> set[K] | None:
        """Return the keys that were changed after an earlier change; None if it is unknown."""
        keys, change = set[K](), self
        while change is not earlier:
            if change._before is None:
                return None
            keys.update(change._keys)
            change = change._before
        return keys


class _Values(ValuesView[V]):
    _mapping: OrderedMap[object, V]

    def __iter__(self) -> Iterator[V]:
        return chain.from_iterable(c.values() for c in self._mapping._chunks.values())


class _Items(ItemsView[K, V]):
    _mapping: OrderedMap[K, V]

    def __iter__(self) -> Iterator[tuple[K, V]]:
        return chain.from_iterable(c.items() for c in self._mapping._chunks.values())
