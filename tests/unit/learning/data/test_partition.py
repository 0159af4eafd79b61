from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import ConfigError, DataError
from learning.data.partition import dirichlet_partition, partition_labels
from learning.data.row_types import Conversation, Instruction, LabelledText, PreferencePair, Row
from tests.support.conversations import turns


@given(
    names=st.lists(st.sampled_from("abc"), min_size=1, max_size=60),
    clients=st.integers(1, 6),
    alpha=st.floats(1e-4, 1e4),
    minimum=st.integers(0, 5),
    seed=st.integers(0, 99),
)
def test_every_row_goes_to_one_client_and_every_client_gets_its_minimum(
    names: list[str], clients: int, alpha: float, minimum: int, seed: int
) -> None:
    if len(names) < clients * minimum:
        with pytest.raises(DataError, match="too few"):
            dirichlet_partition(names, clients, alpha, seed, minimum)
        return
    dealt = dirichlet_partition(names, clients, alpha, seed, minimum)
    assert sorted(i for own in dealt for i in own) == list(range(len(names)))
    assert min(map(len, dealt)) >= minimum
    assert dealt == dirichlet_partition(names, clients, alpha, seed, minimum)


def test_a_large_alpha_makes_clients_alike_and_a_small_one_separates_labels() -> None:
    names = ["a", "b"] * 500

    def share_of_a(alpha: float) -> list[float]:
        dealt = dirichlet_partition(names, 4, alpha, 0, 1)
        return [Counter(names[i] for i in own)["a"] / len(own) for own in dealt]

    assert all(0.45 < share < 0.55 for share in share_of_a(1e5))
    assert max(share_of_a(0.01)) > 0.9


@pytest.mark.parametrize(("clients", "alpha"), [(0, 1.0), (3, 0.0), (3, -1.0), (3, float("nan"))])
def test_settings_out_of_range_are_named(clients: int, alpha: float) -> None:
    with pytest.raises(ConfigError, match=r"data\.clients"):
        dirichlet_partition(["a"] * 10, clients, alpha, 0, 1)


def test_rows_are_labelled_by_their_topic_where_all_have_one() -> None:
    rows = [Instruction("x", "", "y", topic) for topic in ("sums", "words")]
    assert partition_labels(rows, "topic", 0) == ["sums", "words"]


def test_rows_without_topics_are_labelled_by_their_words() -> None:
    rows = [Instruction(f"Add apples {i}", "", "y") for i in range(30)]
    rows += [Instruction(f"Translate sentences {i}", "", "y") for i in range(30)]
    found = partition_labels(rows, "topic", 0)
    assert found == partition_labels(rows, "topic", 0)
    assert set(found[:30]).isdisjoint(found[30:])
    assert any("apples" in name for name in found)


def test_rows_without_common_words_form_one_topic() -> None:
    assert partition_labels([Instruction("?!", "", "y")] * 3, "topic", 0) == ["all"] * 3


def test_a_text_is_labelled_by_its_class_under_topic_and_under_label() -> None:
    rows = [LabelledText("good", "positive"), LabelledText("bad", "negative")]
    assert (
        partition_labels(rows, "label", 0)
        == partition_labels(rows, "topic", 0)
        == ["positive", "negative"]
    )


def test_rows_without_classes_are_labelled_by_topic_under_label() -> None:
    rows = [PreferencePair("x", "y", "z", topic) for topic in ("sums", "words")]
    assert partition_labels(rows, "label", 0) == ["sums", "words"]


def test_preferences_without_topics_are_labelled_by_the_words_of_their_prompts() -> None:
    rows = [PreferencePair(f"Add apples {i}", "y", "z") for i in range(30)]
    rows += [PreferencePair(f"Translate sentences {i}", "y", "z") for i in range(30)]
    found = partition_labels(rows, "topic", 0)
    assert set(found[:30]).isdisjoint(found[30:])


@pytest.mark.parametrize(
    "row",
    [
        lambda text: Instruction("x", "", text),
        lambda text: Conversation(turns("x", text[1:], "z", "y")),
        lambda text: PreferencePair("x", text, "z"),
        lambda text: LabelledText(text, "positive"),
    ],
)
def test_rows_are_labelled_by_the_length_of_the_learned_text(row: Callable[[str], Row]) -> None:
    rows = [row("y" * n) for n in range(1, 101)]
    found = partition_labels(rows, "length", 0)
    assert sorted(Counter(found).values()) == [20] * 5
    assert found == sorted(found)


def test_conversations_without_topics_are_labelled_by_the_words_of_all_their_users_turns() -> None:
    rows = [Conversation(turns("Hi", "ok", f"Add apples {i}", "y")) for i in range(30)]
    rows += [Conversation(turns("Hi", "ok", f"Translate sentences {i}", "y")) for i in range(30)]
    found = partition_labels(rows, "topic", 0)
    assert set(found[:30]).isdisjoint(found[30:])


def test_an_unknown_label_to_partition_by_is_refused() -> None:
    with pytest.raises(ConfigError, match="colour"):
        partition_labels([Instruction("x", "", "y")], "colour", 0)
