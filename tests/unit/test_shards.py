from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import ConfigError, DataError
from learning.instructions import Instruction, read
from learning.shards import MAX_HELDOUT, Prepared, load, prepare, split
from learning.synthetic import instructions

ROWS = instructions(0, 300)
SETTINGS: dict[str, Any] = {
    "clients": 3, "alpha": 0.5, "by": "topic", "seed": 1, "heldout": 0.1,
}  # fmt: skip


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return prepare(ROWS, **SETTINGS, out=tmp_path_factory.mktemp("data"))


def test_clients_and_the_held_out_set_share_all_rows_among_them(prepared: Prepared) -> None:
    aside = read(prepared.heldout).rows
    own = [row for shard in prepared.clients for row in read(shard.path).rows]
    assert sorted(map(repr, [*aside, *own])) == sorted(map(repr, ROWS))
    assert prepared.heldout_rows == len(aside)
    assert 0.05 < len(aside) / len(ROWS) < 0.15


def test_a_shard_knows_its_rows_and_topics(prepared: Prepared) -> None:
    for i, shard in enumerate(prepared.clients):
        rows = read(shard.path).rows
        train, holdout = split(rows)
        assert shard.client_id == f"client_{i}"
        assert shard.path.name == f"client_{i}_sft.jsonl"
        assert (shard.rows, shard.train_rows, shard.holdout_rows) == (
            len(rows),
            len(train),
            len(holdout),
        )
        assert sum(shard.topics.values()) == len(rows)


def test_the_skew_is_told_in_a_table_and_a_picture(prepared: Prepared) -> None:
    table = (prepared.folder / "skew.txt").read_text()
    assert "client_2" in table
    assert "arithmetic" in table
    assert (prepared.folder / "skew.png").read_bytes().startswith(b"\x89PNG")


def test_preparing_again_changes_nothing(prepared: Prepared) -> None:
    before = {path: path.stat().st_mtime_ns for path in prepared.folder.iterdir()}
    assert prepare(ROWS, **SETTINGS, out=prepared.folder) == prepared == load(prepared.folder)
    assert {path: path.stat().st_mtime_ns for path in prepared.folder.iterdir()} == before


@pytest.mark.parametrize(
    ("change", "says"),
    [({"alpha": 0.7}, "alpha = 0.5, not 0.7"), ({"clients": 2}, "clients = 3, not 2")],
)
def test_preparing_in_another_way_names_what_differs(
    prepared: Prepared, change: dict[str, Any], says: str
) -> None:
    with pytest.raises(DataError, match=says):
        prepare(ROWS, **SETTINGS | change, out=prepared.folder)


def test_preparing_from_other_rows_is_refused(prepared: Prepared) -> None:
    with pytest.raises(DataError, match="other rows"):
        prepare([*ROWS[1:], ROWS[1]], **SETTINGS, out=prepared.folder)


def test_an_unfinished_folder_is_prepared_again(tmp_path: Path, prepared: Prepared) -> None:
    (tmp_path / "client_0_sft.jsonl").write_text("torn")
    again = prepare(ROWS, **SETTINGS, out=tmp_path)
    assert again.clients[0].path.read_text() == prepared.clients[0].path.read_text()


def test_a_row_stays_on_its_side_when_rows_are_added(prepared: Prepared, tmp_path: Path) -> None:
    more = prepare([*instructions(9, 100), *ROWS], **SETTINGS, out=tmp_path)
    assert set(read(prepared.heldout).rows) <= set(read(more.heldout).rows)


def test_the_held_out_set_is_capped(tmp_path: Path) -> None:
    rows = [Instruction("x", "", str(i), "one") for i in range(1200)]
    found = prepare(rows, **SETTINGS | {"heldout": 0.9}, out=tmp_path)
    assert found.heldout_rows == MAX_HELDOUT


def test_too_few_rows_and_a_share_out_of_range_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="too few for 3 clients"):
        prepare(ROWS[:4], **SETTINGS, out=tmp_path / "a")
    with pytest.raises(ConfigError, match=r"data\.heldout"):
        prepare(ROWS, **SETTINGS | {"heldout": 1.0}, out=tmp_path / "b")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_was_not_prepared_or_is_damaged_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no prepared data"):
        load(tmp_path)
    (tmp_path / "manifest.json").write_text('{"clients": [{}]}')
    with pytest.raises(DataError, match="damaged"):
        load(tmp_path)


@given(texts=st.lists(st.text(max_size=3), min_size=2, max_size=40))
def test_a_split_has_both_sides_and_loses_nothing(texts: list[str]) -> None:
    rows = [Instruction("x", "", text) for text in texts]
    train, holdout = split(rows)
    assert train
    assert holdout
    assert sorted(map(repr, [*train, *holdout])) == sorted(map(repr, rows))
    if len(set(rows)) > 1:
        assert set(train).isdisjoint(holdout)
