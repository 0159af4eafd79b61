"""Weighted sums of products against dense algebra."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.aggregation.low_rank import Change, Factors, next_factors, stack

OUT, IN, RANK = 9, 7, 4


def factors(seed: int, rank: int = RANK, scale: float = 1.0) -> Factors:
    rng = np.random.default_rng(seed)
    b = scale * rng.normal(size=(OUT, rank))
    return Factors(b.astype(np.float32), rng.normal(size=(rank, IN)).astype(np.float32))


FRESH = Factors(np.zeros((OUT, RANK), np.float32), factors(99).a)


def begin() -> Factors:
    return FRESH


def product(of: Factors) -> np.ndarray:
    return of.b.astype(np.float64) @ of.a


def dense_sum(
    current: int, versions: Mapping[int, Factors], changes: Sequence[Change]
) -> np.ndarray:
    """Return B_t A_t + Σ kᵢ Dᵢ by its definition."""
    total = product(versions[current])
    for change in changes:
        rank, base = change.delta.rank, versions[change.base]
        cut = Factors(base.b[:, :rank], base.a[:rank])
        new = Factors(cut.b + change.delta.b, cut.a + change.delta.a)
        total = total + change.coefficient * (product(new) - product(cut))
    return total


def best_approximation(matrix: np.ndarray, rank: int) -> np.ndarray:
    u, values, vt = np.linalg.svd(matrix, full_matrices=False)
    return (u[:, :rank] * values[:rank]) @ vt[:rank]


@st.composite
def buffers(draw: st.DrawFn) -> tuple[dict[int, Factors], list[Change]]:
    """Draw versions 3 to 5, of which 5 is the current one, and updates from any of them."""
    seed = draw(st.integers(0, 2**31))
    versions = {number: factors(seed + number) for number in (3, 4, 5)}
    updates = draw(
        st.lists(
            st.tuples(st.floats(0.01, 2), st.sampled_from([3, 4, 5]), st.integers(1, RANK)),
            min_size=1,
            max_size=5,
        )
    )
    changes = [
        Change(np.float32(k).item(), base, factors(seed + 10 + index, rank, 0.3))
        for index, (k, base, rank) in enumerate(updates)
    ]
    return versions, changes


@settings(max_examples=25, deadline=None)
@given(buffers())
def test_the_stack_is_exact_for_stale_bases_and_mixed_ranks(
    buffer: tuple[dict[int, Factors], list[Change]],
) -> None:
    left, right = stack(5, *buffer)
    expected = dense_sum(5, *buffer)
    # The dense sum rounds Bᵢ and Aᵢ to float32, which a client does, too.
    np.testing.assert_allclose(left @ right, expected, atol=1e-5 * np.abs(expected).max())


@settings(max_examples=25, deadline=None)
@given(buffers())
def test_the_next_version_is_the_best_approximation_of_every_rank(
    buffer: tuple[dict[int, Factors], list[Change]],
) -> None:
    found = next_factors(5, *buffer, begin)
    exact = dense_sum(5, *buffer)
    size = np.linalg.norm(exact)
    for rank in range(1, RANK + 1):
        cut = Factors(found.b[:, :rank], found.a[:rank])
        best = np.linalg.norm(exact - best_approximation(exact, rank))
        assert np.linalg.norm(exact - product(cut)) <= best + 1e-5 * size


def test_one_full_step_of_one_client_is_its_own_model() -> None:
    # k = 1 and base t: B_t A_t + B A − B_t A_t = B A, whose rank is that of the server.
    start, delta = factors(1), factors(2)
    found = next_factors(7, {7: start}, [Change(1.0, 7, delta)], begin)
    own = Factors(start.b + delta.b, start.a + delta.a)
    np.testing.assert_allclose(product(found), product(own), atol=1e-4)


def test_numbers_that_can_be_checked_by_hand() -> None:
    # B_t A_t = 0; the only update makes it ½ · [3, 0]ᵀ [0, 4] = [[0, 6], [0, 0]] = √6 · √6.
    zero = Factors(np.zeros((2, 1), np.float32), np.array([[0, 4]], np.float32))
    delta = Factors(np.array([[3], [0]], np.float32), np.zeros((1, 2), np.float32))
    found = next_factors(0, {0: zero}, [Change(0.5, 0, delta)], lambda: zero)
    np.testing.assert_allclose(found.b, [[6**0.5], [0]], atol=1e-6)
    np.testing.assert_allclose(found.a, [[0, 6**0.5]], atol=1e-6)


def test_factors_are_balanced_sorted_and_have_one_sign() -> None:
    found = next_factors(1, {1: factors(3)}, [Change(0.5, 1, factors(4))], begin)
    columns, rows = np.linalg.norm(found.b, axis=0), np.linalg.norm(found.a, axis=1)
    np.testing.assert_allclose(columns, rows, rtol=1e-4)
    assert (np.diff(columns) <= 0).all()
    assert (found.b[np.abs(found.b).argmax(axis=0), np.arange(RANK)] > 0).all()


def test_the_same_sum_gives_the_same_bytes() -> None:
    changes = [Change(0.3, 1, factors(6, 2)), Change(0.7, 0, factors(7))]
    one, other = (next_factors(1, {0: factors(4), 1: factors(5)}, changes, begin) for _ in range(2))
    assert (one.b.tobytes(), one.a.tobytes()) == (other.b.tobytes(), other.a.tobytes())


def test_directions_without_content_get_fresh_rows_so_that_they_can_be_learned() -> None:
    # One update of rank 1 on version 0, whose B is zero: the sum has rank 1 of 4.
    delta = factors(8, rank=1)
    found = next_factors(0, {0: FRESH}, [Change(1.0, 0, delta)], begin)
    own = Factors(delta.b, FRESH.a[:1] + delta.a)
    np.testing.assert_allclose(product(found), product(own), atol=1e-4)
    np.testing.assert_array_equal(found.b[:, 1:], 0)
    np.testing.assert_array_equal(found.a[1:], FRESH.a[1:])


def test_directions_of_an_embedding_get_fresh_columns() -> None:
    # PEFT begins an embedding's factors the other way round: A is zero, and B is not.
    fresh = Factors(factors(9).b, np.zeros((RANK, IN), np.float32))
    found = next_factors(0, {0: fresh}, [], lambda: fresh)
    np.testing.assert_array_equal(found.a, 0)
    np.testing.assert_array_equal(found.b, fresh.b)


def test_a_layer_smaller_than_the_rank_keeps_the_shape_of_its_factors() -> None:
    b, a = np.ones((2, 4), np.float32), np.eye(4, 3, dtype=np.float32)
    small = Factors(b, a)
    fresh = Factors(np.zeros_like(b), np.ones_like(a))
    found = next_factors(0, {0: small}, [], lambda: fresh)
    assert (found.b.shape, found.a.shape) == ((2, 4), (4, 3))
    np.testing.assert_allclose(product(found), product(small), atol=1e-6)
