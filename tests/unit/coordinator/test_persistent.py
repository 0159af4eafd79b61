"""Persistent collections: each version stays as it is, and the order is that of a dict."""

from __future__ import annotations

import random

from coordinator.persistent.ordered_map import CHUNK, MAX_CHANGES, OrderedMap
from coordinator.persistent.sorted_keys import Key, SortedKeys


def test_a_map_behaves_as_a_dict_and_keeps_its_earlier_versions() -> None:
    chance, expected = random.Random(1), dict[int, object]()
    made, versions = OrderedMap[int, object](), []
    for _ in range(4 * CHUNK):
        key = chance.randrange(2 * CHUNK)
        if chance.random() < 0.4:
            made = made.remove(key)
            expected.pop(key, None)
        else:
            value = object()
            made = made.put(key, value)
            expected[key] = value
        versions.append((made, dict(expected)))
    for version, content in versions:
        assert list(version.items()) == list(content.items())
        assert list(version.values()) == list(content.values())
        assert list(version) == list(content)
        assert len(version) == len(content)
    assert made == expected


def test_changes_are_found_whether_the_maps_have_one_origin_or_not() -> None:
    start = OrderedMap({key: str(key) for key in range(1000)})
    after = start.remove(3).remove(700).put(5, "new").put(2000, "new").put(500, start[500])
    again = OrderedMap(dict(after.items()))
    assert after.changes_since(start) == ([5, 2000], [3, 700])
    assert again.changes_since(start) == ([5, 2000], [3, 700])
    assert start.changes_since(after) == ([3, 5, 700], [2000])
    assert start.changes_since(start) == ([], [])


def test_changes_are_found_after_more_of_them_than_a_map_remembers() -> None:
    start = after = OrderedMap({key: str(key) for key in range(4 * MAX_CHANGES)})
    for key in reversed(range(2 * MAX_CHANGES)):
        after = after.put(key, "new")
    assert after.changes_since(start) == ([*range(2 * MAX_CHANGES)], [])


def test_a_key_that_returns_is_the_last_one() -> None:
    made = OrderedMap({"a": 1, "b": 2}).put("a", 3)
    assert list(made) == ["a", "b"]
    assert list(made.remove("a").put("a", 4)) == ["b", "a"]


def test_keys_stay_sorted_whatever_is_added_and_removed() -> None:
    chance, held = random.Random(2), set[Key]()
    keys = SortedKeys()
    for _ in range(300):
        removed = set(chance.sample(sorted(held), min(len(held), chance.randrange(4))))
        new = {(chance.randrange(9), chance.randrange(10**6), "") for _ in range(6)} - held
        if chance.random() < 0.01:
            new |= {(0, number, "") for number in range(1000)} - held
        keys, held = keys.change(removed, new), held - removed | new
        assert list(keys) == sorted(held)
        assert keys.first == min(held)
    assert list(keys.change(list(held), ())) == []
