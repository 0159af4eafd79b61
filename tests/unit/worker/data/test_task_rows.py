"""Tests of the rows that a task uses, and of what it can afford to measure."""

from __future__ import annotations

from dataclasses import replace

import pytest

from common.protocol.tasks import LocalTraining
from learning.objectives.kto import TokenisedRating
from learning.objectives.tokens import make_example
from learning.training.batches import shuffled_batches
from worker.data.shards import TokenisedShard
from worker.data.task_rows import HOLDOUT_EXAMPLES, count_measured, select_rows

TRAINING = LocalTraining(steps=3, batch_size=4, lr=1e-3, max_length=64)
SHARD = TokenisedShard(
    [make_example([i], [i + 1] * 9, 9) for i in range(40)],
    [make_example([i], [i] * 4, 4) for i in range(100, 120)],
)


@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        (0.15, 9),  # 2 · 9 · 10 = 180 = 0.15 · 3 · 400
        (0.1499, 8),
        (0.1333, 0),  # 7 rows are too few
        (0.0, 0),
        (1.0, 12),
        (None, 12),
    ],
)
def test_both_measurements_take_at_most_their_share_of_the_training_time(
    budget: float | None, expected: int
) -> None:
    assert count_measured([10] * 12, trained=3 * 400, budget=budget) == expected


def test_a_client_with_few_rows_measures_all_of_them_or_none() -> None:
    assert count_measured([10] * 3, trained=1200, budget=0.15) == 3
    assert count_measured([10] * 3, trained=300, budget=0.15) == 0


def test_a_row_that_is_too_long_ends_the_sample_so_that_short_rows_are_not_preferred() -> None:
    assert count_measured([10] * 8 + [1000] + [10] * 9, trained=2400, budget=0.15) == 8


def test_a_large_holdout_is_measured_in_part() -> None:
    assert count_measured([10] * 100, trained=10, budget=None) == HOLDOUT_EXAMPLES


def test_the_rows_of_a_task_are_those_of_its_batches() -> None:
    batches = shuffled_batches(SHARD.train, 4, seed=5)
    expected = {id(example) for _ in range(3) for example in next(batches)}
    rows = select_rows(SHARD, TRAINING, seed=5, budget=0.9)
    assert {id(SHARD.train[i]) for i in rows.used} == expected
    assert len(rows.used) == 12
    # 12 examples of 10 tokens: 2 · 5 · m ≤ 0.9 · 3 · 120.
    assert rows.measured == SHARD.holdout[:20]
    assert select_rows(SHARD, TRAINING, seed=5, budget=0.3).measured == SHARD.holdout[:10]


def rating(answer: int, mismatched: int) -> TokenisedRating:
    """Return a rated answer of so many tokens, and another row's answer to its prompt."""
    own, other = (make_example([n], [n] * (n - 1), n - 1) for n in (answer, mismatched))
    return TokenisedRating(own, other, good=True)


def test_of_a_rating_the_mismatched_answer_counts_too() -> None:
    shard = TokenisedShard([rating(10, 20)] * 12, [rating(5, 15)] * 20)
    # A step reads 3 · 10 + 20 tokens of each of 12 answers: 600. Measuring one reads 5 + 15, twice.
    assert len(select_rows(shard, TRAINING, seed=5, budget=0.6).measured) == 9
    assert len(select_rows(shard, TRAINING, seed=5, budget=0.599).measured) == 8


def test_a_rating_that_no_row_lends_an_answer_trains_on_its_own_only() -> None:
    alone = replace(rating(10, 20), mismatched=rating(10, 20).answer)
    shard = TokenisedShard([alone] * 12, [rating(5, 15)] * 20)
    assert len(select_rows(shard, TRAINING, seed=5, budget=0.9).measured) == 8  # 40 · 8 ≤ 0.9 · 360
