import pytest
from transformers import PreTrainedTokenizerFast

from common.errors import ModelError
from learning.data.row_types import Conversation, Instruction, Message
from learning.objectives.tokens import IGNORED, NO_ROOM, EncodedRows, encode
from learning.prompts.form import prompt_form
from tests.support.tiny_model import tiny_tokenizer

ROW = Instruction("Add the numbers.", "1, 2", "The sum is three.")


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return tiny_tokenizer()


def test_only_the_response_and_its_end_are_learned(tokenizer: PreTrainedTokenizerFast) -> None:
    (example,) = encode(tokenizer, [ROW], 256).examples
    asked = prompt_form(tokenizer, None).prompt_ids(ROW)
    assert example.labels[: len(asked)] == (IGNORED,) * len(asked)
    learned = example.input_ids[len(asked) :]
    assert example.labels[len(asked) :] == learned
    assert learned[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(learned[:-1]) == ROW.output
    assert example.target_count == len(learned)
    assert example.response_bytes == len(ROW.output)


def test_a_prompt_has_the_same_ids_in_training_and_generation(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    (example,) = encode(tokenizer, [ROW], 256).examples
    asked = prompt_form(tokenizer, None).prompt_ids(ROW)
    assert list(example.input_ids[: len(asked)]) == asked


def test_a_long_response_loses_its_tail_and_its_end(tokenizer: PreTrainedTokenizerFast) -> None:
    whole = encode(tokenizer, [ROW], 256).examples[0]
    cut = encode(tokenizer, [ROW], len(whole.input_ids) - 3)
    assert cut.truncated_count == 1
    assert cut.examples[0].input_ids == whole.input_ids[:-3]
    assert cut.examples[0].input_ids[-1] != tokenizer.eos_token_id
    assert 0 < cut.examples[0].response_bytes < whole.response_bytes


def test_a_prompt_that_leaves_no_room_is_skipped_and_counted(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    asked = len(prompt_form(tokenizer, None).prompt_ids(ROW))
    assert encode(tokenizer, [ROW, ROW], asked) == EncodedRows((), (), {NO_ROOM: 2})
    assert encode(tokenizer, [ROW], asked + 1).examples[0].target_count == 1
    assert encode(tokenizer, [], 64) == EncodedRows((), (), {})


def test_kept_examples_name_the_indices_of_their_rows(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    long = Instruction("Add the numbers. " * 30, "", "three")
    found = encode(tokenizer, [long, ROW, long, ROW], 100)
    assert found.kept == (1, 3)
    assert found.skipped == {NO_ROOM: 2}
    assert found.examples == encode(tokenizer, [ROW, ROW], 100).examples


def test_a_special_token_in_the_data_counts_as_bytes_of_the_response(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    odd = Instruction("Say hé.", "", "héé ☂")
    (example,) = encode(tokenizer, [odd], 256).examples
    assert example.response_bytes == len("héé ☂".encode())


def test_a_tokenizer_without_an_end_of_sequence_token_is_refused() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.eos_token = None
    with pytest.raises(ModelError, match="end-of-sequence"):
        encode(tokenizer, [ROW], 64)


def test_answers_that_do_not_fit_are_counted(tokenizer: PreTrainedTokenizerFast) -> None:
    turns = [Message("user", "Add."), Message("assistant", "Three."), Message("user", "More.")]
    row = Conversation((*turns, Message("assistant", "Four."), *turns[:2]))
    whole = encode(tokenizer, [row], 1000)
    assert (whole.truncated_count, whole.lost_answers) == (0, 0)
    first = len(prompt_form(tokenizer, None).prompt_ids(Conversation(row.messages[:2])))
    found = encode(tokenizer, [row, ROW], first + 3)
    assert (found.kept, found.truncated_count, found.lost_answers) == ((0,), 1, 2)
    assert found.skipped == {NO_ROOM: 1}
