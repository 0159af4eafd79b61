"""Cache of last updates, on numbers that are easy to check."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from coordinator.aggregation.update_cache import UpdateCache, cached_coefficients


@dataclass(frozen=True)
class Applied:
    task_id: str
    client_id: str
    value: float = 0.0  # its delta
    clip: float = 1.0


def step(
    buffer: list[tuple[str, float]], cached: list[tuple[str, float]], rate: float = 1.0
) -> float:
    """Return v, given client and delta of each update."""
    applied = [Applied(f"t{client}", client, value) for client, value in cached]
    weights = [(client, 1 / len(buffer)) for client, _ in buffer]
    factors = cached_coefficients(weights, applied, rate)
    return rate * sum(value for _, value in buffer) / len(buffer) + sum(
        factor * update.value for factor, update in zip(factors, applied, strict=True)
    )


def test_the_first_step_is_the_mean_of_the_buffer() -> None:
    assert step([("a", 2), ("b", 4)], []) == pytest.approx(3)


def test_a_step_is_the_cached_mean_and_what_has_changed_since() -> None:
    # h = 2, 4, 9; a and b answer with 4 and 8: 5 + (2 + 4)/2.
    assert step([("a", 4), ("b", 8)], [("a", 2), ("b", 4), ("c", 9)]) == pytest.approx(8)


def test_clients_that_repeat_themselves_leave_the_step_at_the_mean_of_all() -> None:
    cached = [("a", 2.0), ("b", 4.0), ("c", 9.0)]
    assert step([("a", 2)], cached) == pytest.approx(5)
    assert step([("a", 2), ("c", 9)], cached, rate=0.5) == pytest.approx(2.5)


def test_a_client_without_a_cached_update_counts_as_the_mean() -> None:
    cached = [("a", 2.0), ("b", 4.0), ("c", 9.0)]
    assert step([("x", 7), ("y", 9)], cached) == pytest.approx(8)  # as if cached = 5, 5
    # 5 + ((7 − 2) + (9 − 5))/2
    assert step([("a", 7), ("y", 9)], cached) == pytest.approx(9.5)


def test_the_norm_clip_of_a_cached_update_counts_again() -> None:
    update = Applied("t1", "a", clip=0.5)
    assert cached_coefficients([("b", 1.0)], [update, Applied("t2", "b")], 2.0) == [0.5, 2 * -0.5]


# what is in the cache


def names(cache: UpdateCache[Applied], version: int, phase: int = 0) -> list[str]:
    return [update.task_id for update in cache.before(version, phase)]


def test_the_newest_update_of_each_client_stays() -> None:
    cache = UpdateCache[Applied](10)
    cache.apply(1, 0, [Applied("t1", "a"), Applied("t2", "b"), Applied("t3", "a")])
    assert names(cache, 2) == ["t2", "t3"]
    cache.apply(2, 0, [Applied("t4", "b")])
    assert names(cache, 3) == ["t3", "t4"]


def test_an_update_is_forgotten_when_a_stale_one_as_old_would_be_rejected() -> None:
    cache = UpdateCache[Applied](2)
    cache.apply(1, 0, [Applied("t1", "a")])
    assert names(cache, 4) == ["t1"]  # 2 versions were made since
    assert names(cache, 5) == []


def test_a_phase_begins_with_an_empty_cache() -> None:
    cache = UpdateCache[Applied](10)
    cache.apply(1, 0, [Applied("t1", "a")])
    assert names(cache, 2, phase=1) == []
