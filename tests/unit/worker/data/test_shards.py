"""Tests of the rows of the clients that a worker serves."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerBase

from common.errors import DataError
from learning.data.row_types import PreferencePair
from learning.data.rows import write
from learning.objectives import registry
from learning.synthetic.instructions import make_instructions
from tests.support.tiny_model import tiny_tokenizer
from tests.support.worker_records import task
from worker.data.shards import ClientData, TokenisedShard


def read(
    rows: ClientData, client: str, tokenizer: PreTrainedTokenizerBase, length: int = 256
) -> TokenisedShard:
    """Load a client's instructions; its name is not validated, so it can be hostile."""
    wanted = task(max_length=length).model_copy(update={"client_id": client})
    return rows.load_for_task(wanted, registry.make_objective("sft"), tokenizer)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    rows = tuple(make_instructions(0, 90))
    path = tmp_path / "clients"
    path.mkdir()
    write(path / "client_0_sft.jsonl", rows[:40])
    write(path / "client_1_sft.jsonl", rows[40:80])
    write(path / "heldout_sft.jsonl", rows[80:])
    return path


def test_clients_are_the_files_that_are_there_without_the_held_out_rows(directory: Path) -> None:
    assert ClientData(directory).clients() == ("client_0", "client_1")


def test_a_directory_that_is_not_there_has_no_clients(tmp_path: Path) -> None:
    assert ClientData(tmp_path / "nowhere").clients() == ()


def test_rows_are_trained_on_or_measured_but_never_both(directory: Path) -> None:
    shard = read(ClientData(directory), "client_0", tiny_tokenizer(), 256)
    learned = {tuple(example.input_ids) for example in shard.train}
    measured = {tuple(example.input_ids) for example in shard.holdout}
    assert learned and measured
    assert not learned & measured
    assert len(shard.train) + len(shard.holdout) < 40  # `fccl evaluate` has the others


def test_rows_are_tokenised_once(directory: Path) -> None:
    data, tokenizer = ClientData(directory), tiny_tokenizer()
    first = read(data, "client_0", tokenizer)
    (directory / "client_0_sft.jsonl").unlink()
    assert read(data, "client_0", tokenizer).train is first.train


@pytest.mark.parametrize("name", ["client_9", "heldout"])
def test_an_unknown_client_is_a_data_error_that_names_it(directory: Path, name: str) -> None:
    with pytest.raises(DataError, match=name) as caught:
        read(ClientData(directory), name, tiny_tokenizer(), 256)
    assert str(directory) in caught.value.what
    assert "--data" in caught.value.remedy


@pytest.mark.parametrize(
    "label", ["../secret", "../clients/client_0", "./client_0", "{}/secret", "sub/client_5", "*"]
)
def test_a_label_is_compared_with_files_and_never_made_a_path(directory: Path, label: str) -> None:
    rows = tuple(make_instructions(1, 20))
    write(directory.parent / "secret_sft.jsonl", rows)
    (directory / "sub").mkdir()
    write(directory / "sub" / "client_5_sft.jsonl", rows)
    with pytest.raises(DataError, match="no rows of"):
        read(ClientData(directory), label.format(directory.parent), tiny_tokenizer(), 256)


def test_rows_that_do_not_fit_are_a_data_error_with_the_key_to_change(directory: Path) -> None:
    with pytest.raises(DataError, match="16 tokens") as caught:
        read(ClientData(directory), "client_0", tiny_tokenizer(), 16)
    assert "model.max_length" in caught.value.remedy


def test_a_client_may_have_rows_of_one_kind_only(directory: Path) -> None:
    pairs = [PreferencePair(f"Say {i}.", f"Yes, {i}.", f"No {i}!") for i in range(9)]
    write(directory / "client_7_va.jsonl", pairs)
    assert ClientData(directory).clients() == ("client_0", "client_1", "client_7")
    with pytest.raises(DataError, match="no rows of client_7 for sft") as caught:
        read(ClientData(directory), "client_7", tiny_tokenizer())
    assert "client_7_sft.jsonl" in caught.value.remedy
    shard = ClientData(directory).load_for_task(
        task(client_id="client_7", objective="dpo"),
        registry.make_objective("dpo"),
        tiny_tokenizer(),
    )
    assert len(shard.train) + len(shard.holdout) < 9  # `fccl evaluate` has the others


def test_the_holdout_is_ordered_by_a_hash_and_not_as_the_file(directory: Path) -> None:
    lines = (directory / "client_0_sft.jsonl").read_text().splitlines(keepends=True)
    (directory / "client_1_sft.jsonl").write_text("".join(reversed(lines)))
    rows, tokenizer = ClientData(directory), tiny_tokenizer()
    holdout = read(rows, "client_0", tokenizer).holdout
    assert len(holdout) > 2 and holdout == read(rows, "client_1", tokenizer).holdout
