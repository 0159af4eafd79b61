from hypothesis import given
from hypothesis import strategies as st

from learning.data.row_types import Instruction, LabelledText, PreferencePair
from learning.data.splits import R, Split, split_rows
from learning.synthetic.instructions import make_instructions

ROWS = make_instructions(0, 300)


def sides(parts: Split[R]) -> tuple[set[R], set[R], set[R]]:
    return set(parts.train), set(parts.validation), set(parts.holdout)


@given(texts=st.lists(st.text(max_size=3), min_size=2, max_size=40))
def test_a_split_keeps_every_row_and_fills_every_side_it_can(
    texts: list[str],
) -> None:
    rows = [Instruction("x", "", text) for text in texts]
    parts = split_rows(rows)
    train, validation, holdout = sides(parts)
    everywhere = [*parts.train, *parts.validation, *parts.holdout]
    assert sorted(map(repr, everywhere)) == sorted(map(repr, rows))
    assert train
    assert holdout
    assert bool(validation) == (len(set(rows)) > 2)
    if len(set(rows)) > 1:
        assert len(train) + len(validation) + len(holdout) == len(set(rows))


def test_a_split_gives_eight_tenths_to_training_and_one_to_each_other_side() -> None:
    parts = split_rows([LabelledText(str(i), "positive") for i in range(3000)])
    assert 0.78 < len(parts.train) / 3000 < 0.82
    assert 0.08 < len(parts.validation) / 3000 < 0.12
    assert 0.08 < len(parts.holdout) / 3000 < 0.12


def test_a_row_stays_on_its_side_when_rows_are_added() -> None:
    before = sides(split_rows(ROWS[:200]))
    after = sides(split_rows(ROWS))
    assert all(small <= large for small, large in zip(before, after, strict=True))


def test_two_pairs_of_one_prompt_are_on_the_same_side() -> None:
    pairs = [PreferencePair(str(i // 2), str(i), "no") for i in range(400)]
    parts = split_rows(pairs)
    prompts = [{pair.prompt for pair in side} for side in sides(parts)]
    assert sum(map(len, prompts)) == 200


def test_a_single_row_is_trained_on() -> None:
    assert split_rows(ROWS[:1]) == Split((ROWS[0],), (), ())
