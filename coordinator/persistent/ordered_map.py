"""Persistent mapping that iterates in the order of insertion, as a dict does.

A change copies a chunk of `CHUNK` entries and the table of chunks, so it costs microseconds with
100,000 entries. Two maps are compared chunk by chunk, and shared chunks are skipped.
"""

from __future__ import annotations

from collections.abc import ItemsView, Iterable, Iterator, Mapping, ValuesView
from itertools import chain
from typing import Generic, TypeVar, cast

from immutables import Map

K = TypeVar("K")
V = TypeVar("V")

CHUNK = 256  # entries


class OrderedMap(Mapping[K, V], Generic[K, V]):
    """Immutable mapping; a key that is set again keeps its place."""

    __slots__ = ("_chunks", "_next", "_places")

    def __init__(self, entries: Mapping[K, V] | Iterable[tuple[K, V]] = ()) -> None:
        entries = dict(entries)
        keys = list(entries)
        self._places: Map[K, int] = Map(zip(keys, range(len(keys)), strict=True))
        self._chunks: dict[int, dict[K, V]] = {
            start // CHUNK: {key: entries[key] for key in keys[start : start + CHUNK]}
            for start in range(0, len(keys), CHUNK)
        }
        self._next = len(keys)

    @classmethod
    def of(cls, mapping: Mapping[K, V]) -> OrderedMap[K, V]:
        """Return a mapping as an ordered map; one that is one already, itself."""
        return mapping if isinstance(mapping, OrderedMap) else cls(mapping)

    def set(self, key: K, value: V) -> OrderedMap[K, V]:
        """Return the map with one entry added or replaced."""
        return self.update(((key, value),))

    def update(self, entries: Iterable[tuple[K, V]]) -> OrderedMap[K, V]:
        """Return the map with entries added or replaced."""
        chunks, places, following = dict(self._chunks), self._places, self._next
        own = set[int]()
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
        return self._with(chunks, places, following)

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
        return self._with(chunks, self._places.delete(key), self._next)

    def place(self, key: K) -> int:
        """Return a number that is larger for keys that come later."""
        return self._places[key]

    def changes_since(self, before: OrderedMap[K, V]) -> tuple[list[K], list[K]]:
        """Return the keys with another value than `before` had, or none; and those removed since.

        Values are compared by identity. Both lists are in the order of the maps.
        """
        if before is self:
            return [], []
        changed = [
            key
            for number, chunk in self._chunks.items()
            if before._chunks.get(number) is not chunk
            for key, value in chunk.items()
            if before.get(key) is not value
        ]
        removed = [
            key
            for number, chunk in before._chunks.items()
            if self._chunks.get(number) is not chunk
            for key in chunk
            if key not in self._places
        ]
        return changed, removed

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
        self, chunks: dict[int, dict[K, V]], places: Map[K, int], following: int
    ) -> OrderedMap[K, V]:
        made = cast(OrderedMap[K, V], object.__new__(OrderedMap))
        made._chunks, made._places, made._next = chunks, places, following
        return made


class _Values(ValuesView[V]):
    _mapping: OrderedMap[object, V]

    def __iter__(self) -> Iterator[V]:
        return chain.from_iterable(c.values() for c in self._mapping._chunks.values())


class _Items(ItemsView[K, V]):
    _mapping: OrderedMap[K, V]

    def __iter__(self) -> Iterator[tuple[K, V]]:
        return chain.from_iterable(c.items() for c in self._mapping._chunks.values())
