from collections import Counter

import torch
from hypothesis import given
from hypothesis import strategies as st

from learning.objectives.tokens import IGNORED, TokenisedExample
from learning.training.batches import (
    batches_per_epoch,
    collate,
    shuffled_batches,
    shuffled_indexes,
    sorted_batches,
)


def example(*ids: int, prompt_length: int = 1) -> TokenisedExample:
    return TokenisedExample(ids, (IGNORED,) * prompt_length + ids[prompt_length:], len(ids))


def test_a_batch_is_padded_on_the_right_to_a_multiple_of_16() -> None:
    batch = collate([example(5, 6, 7), example(8, 9)])
    assert batch.input_ids.tolist() == [[5, 6, 7] + [0] * 13, [8, 9] + [0] * 14]
    assert batch.attention_mask.tolist() == [[1] * 3 + [0] * 13, [1] * 2 + [0] * 14]
    assert batch.labels.tolist() == [
        [IGNORED, 6, 7] + [IGNORED] * 13,
        [IGNORED, 9] + [IGNORED] * 14,
    ]
    assert collate([example(*[1] * 16)]).input_ids.shape == (1, 16)
    assert (batch.tokens, batch.target_count, batch.size) == (5, 3, 2)


@given(n=st.integers(1, 80), batch_size=st.integers(1, 9), seed=st.integers(0, 5))
def test_every_pass_holds_every_example_once_in_batches_of_nearly_equal_size(
    n: int, batch_size: int, seed: int
) -> None:
    examples = [example(1, i + 1, *[3] * (i % 7)) for i in range(n)]
    batches = shuffled_batches(examples, batch_size, seed)
    for _ in range(2):
        one_pass = [next(batches) for _ in range(batches_per_epoch(n, batch_size))]
        seen = Counter(each.input_ids[1] for batch in one_pass for each in batch)
        assert seen == Counter(range(1, n + 1))
        sizes = [len(batch) for batch in one_pass]
        assert max(sizes) <= batch_size
        assert max(sizes) - min(sizes) <= 1


def test_order_follows_the_seed_and_differs_between_passes() -> None:
    examples = [example(1, i, 2) for i in range(40)]

    def first(seed: int, n: int) -> list[list[int]]:
        batches = shuffled_batches(examples, 4, seed)
        return [[each.input_ids[1] for each in next(batches)] for _ in range(n)]

    assert first(1, 20) == first(1, 20)
    assert first(1, 10) != first(2, 10)
    assert first(1, 20)[:10] != first(1, 20)[10:]


def test_padding_is_a_few_percent_of_the_tokens() -> None:
    generator = torch.Generator().manual_seed(0)
    lengths = (torch.rand(1000, generator=generator) ** 3 * 240 + 10).int().tolist()
    examples = [example(*[1] * length) for length in lengths]
    batches = shuffled_batches(examples, 16, 0)
    one_pass = [collate(next(batches)) for _ in range(batches_per_epoch(1000, 16))]
    padded = sum(b.input_ids.numel() for b in one_pass)
    assert padded < 1.2 * sum(lengths)


def test_sorted_batches_hold_every_example_once_by_length() -> None:
    examples = [example(*[1] * n) for n in (35, 2, 39, 4)]
    shapes = [b.input_ids.shape for b in sorted_batches(examples, collate, 96)]
    assert shapes == [(2, 16), (2, 48)]


def test_an_evaluation_batch_has_at_most_the_given_tokens_with_its_padding() -> None:
    lengths = [16, 16, 16, 17, 100]
    examples = [example(*[1] * n) for n in lengths]
    shapes = [tuple(b.input_ids.shape) for b in sorted_batches(examples, collate, 48)]
    # A fourth row would make 4 · 32 tokens; the last row is over the limit and goes alone.
    assert shapes == [(3, 16), (1, 32), (1, 112)]
    assert list(sorted_batches([], collate)) == []


def test_it_is_known_before_training_which_examples_the_batches_will_hold() -> None:
    examples = [example(1, i, *[2] * (i % 5)) for i in range(30)]
    batches = shuffled_batches(examples, 4, 7)
    indexes = shuffled_indexes([e.length for e in examples], 4, 7)
    for _ in range(20):
        assert [examples[i] for i in next(indexes)] == next(batches)
