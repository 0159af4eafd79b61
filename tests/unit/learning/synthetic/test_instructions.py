from collections import Counter

from learning.synthetic import lexicon
from learning.synthetic.instructions import TOPICS, make_instructions, make_prose


def test_the_same_seed_gives_the_same_text_and_another_seed_another() -> None:
    assert make_instructions(3, 40) == make_instructions(3, 40)
    assert make_instructions(3, 40) != make_instructions(4, 40)
    assert make_prose(3, 5) == make_prose(3, 5)


def test_topics_have_equal_shares_and_rows_are_distinct() -> None:
    rows = make_instructions(0, 1500)
    assert set(Counter(row.topic for row in rows).values()) == {1500 // len(TOPICS)}
    assert len(set(rows)) == 1500


def test_answers_are_sentences_of_several_words() -> None:
    lengths = [len(row.output.split()) for row in make_instructions(1, 500)]
    assert min(lengths) >= 7
    assert max(lengths) <= 30


def test_sums_sorted_lists_and_counts_are_right() -> None:
    value = {lexicon.number(n): n for n in range(100)}
    for row in make_instructions(2, 600):
        if row.topic == "arithmetic":
            a, sign, b, _, c = row.output.lower().split(",")[0].split()
            assert value[a] + (value[b] if sign == "plus" else -value[b]) == value[c]
        if row.topic == "sorting":
            assert row.output[:-1].split(": ")[1].split(", ") == sorted(row.input.split(", "))
        if row.topic == "counting":
            assert row.output.split()[2] == lexicon.number(len(row.input.split(", ")))


def test_prose_holds_no_answer() -> None:
    answers = {row.output for row in make_instructions(0, 1500)}
    text = " ".join(make_prose(0, 2000))
    assert not [answer for answer in answers if answer in text]
    assert "###" not in text
