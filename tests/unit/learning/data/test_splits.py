from hypothesis import given
from hypothesis import strategies as st

from learning.data.row_types import Conversation, Instruction, LabelledText, PreferencePair
from learning.data.splits import R, Split, hold_out, row_rank, split_rows
from learning.synthetic.instructions import make_instructions
from tests.support.conversations import turns

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


def test_the_rank_of_a_conversation_follows_from_its_turns_and_tools() -> None:
    talk = Conversation(turns("Hi", "Hello."), "", "tea")
    assert f"{row_rank(talk, 'client'):.6f}" == "0.757789"
    assert row_rank(talk, "all") == row_rank(Conversation(talk.messages), "all")
    others = [
        Conversation(turns("Hi", "Hello. ")),
        Conversation(turns("Hi", "Hello.", "Tea?", "Yes.")),
        Conversation(talk.messages, "[{}]"),
    ]
    assert row_rank(talk, "all") not in [row_rank(other, "all") for other in others]


def test_pairs_of_one_conversation_are_on_the_same_side() -> None:
    pairs = [PreferencePair(turns("Hi", "Hello.", str(i // 2)), str(i), "no") for i in range(400)]
    prompts = [{pair.prompt for pair in side} for side in sides(split_rows(pairs))]
    assert sum(map(len, prompts)) == 200


def repeated(*counts: int) -> list[Instruction]:
    """Return rows, one after the other so many times."""
    return [
        Instruction(f"Say {i}.", "", "x") for i, count in enumerate(counts) for _ in range(count)
    ]


@given(
    counts=st.lists(st.sampled_from([1, 1, 1, 2]), min_size=11, max_size=60),
    large=st.integers(8, 80),
)
def test_a_row_that_is_repeated_often_fills_neither_the_held_out_set_nor_a_side(
    counts: list[int], large: int
) -> None:
    rows = repeated(large, *counts)
    expected = len(rows) / 10
    heldout, others = hold_out(rows, 0.1)
    if large > max(2, expected + 1):
        assert rows[0] in others
    assert not set(heldout) & set(others)
    assert 1 <= len(heldout) <= max(1.5 * expected + 3, len([1 for c in counts]) / 3)
    parts = split_rows(rows)
    assert all(map(len, sides(parts)))
    if large > max(2, expected + 1):
        assert rows[0] in parts.train


def test_thirty_equal_rows_of_forty_one_leave_a_tenth_held_out() -> None:
    rows = repeated(30, *[1] * 11)
    heldout, others = hold_out(rows, 0.1)
    assert (len(heldout), len(others)) == (4, 37)
    parts = split_rows(rows)
    assert (len(parts.train), len(parts.validation), len(parts.holdout)) == (33, 4, 4)


def test_of_rows_that_are_all_repeated_the_fewest_are_held_out() -> None:
    heldout, others = hold_out(repeated(20, 12, 30), 0.1)
    assert (len(heldout), len(others)) == (12, 50)
    assert hold_out(repeated(20), 0.1)[1] == []


def test_without_repeated_rows_the_smallest_hashes_are_held_out() -> None:
    ranks = sorted(row_rank(row, "all") for row in ROWS)
    below = [rank for rank in ranks if rank < 0.1]
    heldout, _ = hold_out(ROWS, 0.1)
    assert sorted(row_rank(row, "all") for row in heldout) == below
