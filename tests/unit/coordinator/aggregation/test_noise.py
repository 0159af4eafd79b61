"""Noise of versions: reproducible, independent by tensor, and normal."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from scipy import special, stats

from coordinator.aggregation.noise import BLOCK, SEED_BYTES, gaussian, inverse_normal

SEED = bytes(range(SEED_BYTES))


def test_the_same_seed_and_name_draw_the_same_bits_on_every_machine() -> None:
    values = gaussian(SEED, "layer.A", 100_000)
    assert hashlib.sha256(values.tobytes()).hexdigest()[:16] == "bf2f2448bac1d509"


def test_a_longer_tensor_begins_with_the_values_of_a_shorter_one() -> None:
    assert (gaussian(SEED, "a", BLOCK + 7)[:10] == gaussian(SEED, "a", 10)).all()


@pytest.mark.parametrize("other", [(SEED[::-1], "a"), (SEED, "b")])
def test_another_seed_or_tensor_draws_independent_values(other: tuple[bytes, str]) -> None:
    one, two = gaussian(SEED, "a", 50_000), gaussian(*other, 50_000)
    assert abs(np.corrcoef(one, two)[0, 1]) < 0.02


def test_values_are_standard_normal() -> None:
    values = gaussian(SEED, "a", 200_000)
    assert abs(values.mean()) < 0.01
    assert abs(values.var() - 1) < 0.01
    assert stats.kstest(values, "norm").pvalue > 0.01


def test_the_inverse_of_the_normal_distribution_is_exact_also_in_the_tails() -> None:
    u = np.concatenate([np.linspace(0.001, 0.999, 999), 2.0 ** -np.arange(2, 53), [1 - 2.0**-52]])
    expected = special.ndtri(u)
    assert np.allclose(inverse_normal(u), expected, rtol=1e-13, atol=1e-15)
