import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from common.errors import ConfigError, DataError
from common.protocol.fields import RowKind
from learning.data.prepared_data import PreparedData, load
from learning.data.row_types import Instruction, LabelledText, PreferencePair, Row
from learning.data.rows import read
from learning.data.shards import prepare_shards
from learning.data.splits import MAX_HELDOUT, split_rows
from learning.synthetic.instructions import make_instructions

ROWS = make_instructions(0, 300)
PAIRS = [
    PreferencePair(f"{row.instruction} {row.input}", row.output, "No.", row.topic) for row in ROWS
]
TEXTS = [
    LabelledText(row.output, "short" if len(row.output) < 60 else "long") for row in ROWS[:200]
]
ALL: dict[RowKind, Sequence[Row]] = {"sft": ROWS, "va": PAIRS, "cls": TEXTS}
SETTINGS: dict[str, Any] = {
    "clients": 3, "alpha": 0.5, "by": "topic", "seed": 1, "heldout": 0.1,
}  # fmt: skip


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    return prepare_shards(ALL, **SETTINGS, out=tmp_path_factory.mktemp("data"))


@pytest.mark.parametrize("kind", ["sft", "va", "cls"])
def test_clients_and_the_held_out_set_share_all_rows_of_a_kind_among_them(
    prepared: PreparedData, kind: RowKind
) -> None:
    aside = read(kind, prepared.heldout[kind]).rows
    own = [row for s in prepared.shards if s.kind == kind for row in read(kind, s.path).rows]
    assert sorted(map(repr, [*aside, *own])) == sorted(map(repr, ALL[kind]))
    assert prepared.heldout_rows[kind] == len(aside)
    assert 0.05 < len(aside) / len(ALL[kind]) < 0.15


def test_a_shard_counts_its_rows_and_topics(prepared: PreparedData) -> None:
    assert [(shard.client_id, shard.kind) for shard in prepared.shards] == [
        (f"client_{i}", kind) for kind in ("sft", "va", "cls") for i in range(3)
    ]
    for shard in prepared.shards:
        rows = read(shard.kind, shard.path).rows
        parts = split_rows(rows)
        assert shard.path.name == f"{shard.client_id}_{shard.kind}.jsonl"
        assert (shard.rows, shard.train_rows, shard.validation_rows, shard.holdout_rows) == (
            len(rows), len(parts.train), len(parts.validation), len(parts.holdout),
        )  # fmt: skip
        assert sum(shard.topics.values()) == len(rows)
        assert set(shard.topics) <= (
            {"short", "long"} if shard.kind == "cls" else {row.topic for row in ROWS}
        )


def test_training_rows_are_counted_by_client_and_kind(prepared: PreparedData) -> None:
    found = prepared.rows()
    assert set(found) == {"client_0", "client_1", "client_2"}
    assert all(set(of) == {"sft", "va", "cls"} for of in found.values())
    assert found["client_1"]["va"] == prepared.shards[4].train_rows


def test_instructions_are_dealt_with_the_seed_itself(prepared: PreparedData) -> None:
    files = sorted(prepared.folder.glob("*_sft.jsonl"))
    outputs = [
        " ".join(row.output for row in read("sft", path).rows if isinstance(row, Instruction))
        for path in files
    ]
    assert [hashlib.sha256(text.encode()).hexdigest()[:12] for text in outputs] == [
        "2cccf9973cf3", "9706e51cfe66", "cbec76d0d809", "b490bb43dccc",
    ]  # fmt: skip


def test_the_skew_is_written_as_a_table_and_a_picture_of_each_kind(prepared: PreparedData) -> None:
    tables = (prepared.folder / "skew.txt").read_text()
    assert "client_2" in tables
    assert "arithmetic" in tables
    for kind, called in (("sft", "instructions"), ("va", "preferences"), ("cls", "labelled texts")):
        assert f"{called} ({kind})" in tables
        assert (prepared.folder / f"skew_{kind}.png").read_bytes().startswith(b"\x89PNG")


def test_each_kind_is_dealt_with_a_seed_of_its_own(prepared: PreparedData) -> None:
    by_kind = {kind: [s.topics for s in prepared.shards if s.kind == kind] for kind in ALL}
    assert by_kind["sft"] != by_kind["va"]


def test_preparing_again_changes_nothing(prepared: PreparedData) -> None:
    before = {path: path.stat().st_mtime_ns for path in prepared.folder.iterdir()}
    assert prepare_shards(ALL, **SETTINGS, out=prepared.folder) == prepared == load(prepared.folder)
    assert {path: path.stat().st_mtime_ns for path in prepared.folder.iterdir()} == before


@pytest.mark.parametrize(
    ("rows", "change", "says"),
    [
        (ALL, {"alpha": 0.7}, "with alpha = 0.5, not 0.7"),
        (ALL, {"clients": 2}, "with clients = 3, not 2"),
        ({"sft": ROWS}, {}, "for sft and va and cls, not for sft"),
        (ALL | {"va": PAIRS[1:]}, {}, "from 300 rows of preferences, not 299"),
        (ALL | {"cls": [*TEXTS[1:], TEXTS[1]]}, {}, "from other rows of labelled texts"),
    ],
)
def test_preparing_with_other_settings_names_the_difference(
    prepared: PreparedData, rows: dict[RowKind, Sequence[Row]], change: dict[str, Any], says: str
) -> None:
    with pytest.raises(DataError, match=says):
        prepare_shards(rows, **SETTINGS | change, out=prepared.folder)


def test_an_unfinished_folder_is_prepared_again(tmp_path: Path, prepared: PreparedData) -> None:
    (tmp_path / "client_0_sft.jsonl").write_text("torn")
    again = prepare_shards(ALL, **SETTINGS, out=tmp_path)
    assert again.shards[0].path.read_text() == prepared.shards[0].path.read_text()


def test_held_out_rows_stay_held_out_when_rows_are_added(
    prepared: PreparedData, tmp_path: Path
) -> None:
    more = prepare_shards({"sft": [*make_instructions(9, 100), *ROWS]}, **SETTINGS, out=tmp_path)
    before = read("sft", prepared.heldout["sft"]).rows
    assert set(before) <= set(read("sft", more.heldout["sft"]).rows)


def test_the_held_out_set_is_capped(tmp_path: Path) -> None:
    rows = [Instruction("x", "", str(i), "one") for i in range(1200)]
    found = prepare_shards({"sft": rows}, **SETTINGS | {"heldout": 0.9}, out=tmp_path)
    assert found.heldout_rows["sft"] == MAX_HELDOUT


def test_each_client_gets_a_row_for_every_side_however_few_rows_there_are(tmp_path: Path) -> None:
    few = prepare_shards({"va": PAIRS[:12]}, **SETTINGS | {"alpha": 0.01}, out=tmp_path)
    assert all(
        min(shard.train_rows, shard.validation_rows, shard.holdout_rows) >= 1
        for shard in few.shards
    )


def test_a_row_that_is_most_of_the_data_is_dealt_to_clients(tmp_path: Path) -> None:
    rows = [Instruction("Say it.", "", "It.")] * 30
    rows += [Instruction(f"Say {i}.", "", str(i)) for i in range(11)]
    found = prepare_shards({"sft": rows}, **SETTINGS | {"clients": 2}, out=tmp_path)
    assert found.heldout_rows["sft"] == 4
    assert sum(shard.rows for shard in found.shards) == 37


def test_too_few_rows_of_a_kind_are_refused_with_their_number(tmp_path: Path) -> None:
    says = r"^8 rows of preferences are too few for 3 clients: [5-7] are left"
    with pytest.raises(DataError, match=says):
        prepare_shards(ALL | {"va": PAIRS[:8]}, **SETTINGS, out=tmp_path)
    with pytest.raises(DataError, match=r"^40 rows of preferences \(1 different\) are too few"):
        prepare_shards(ALL | {"va": PAIRS[:1] * 40}, **SETTINGS, out=tmp_path)
    with pytest.raises(DataError, match="no rows"):
        prepare_shards({}, **SETTINGS, out=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_share_out_of_range_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.heldout"):
        prepare_shards(ALL, **SETTINGS | {"heldout": 1.0}, out=tmp_path / "b")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "manifest",
    ['{"clients": [{}]}', '{"shards": [], "heldout": {"rl": "x"}, "heldout_rows": {}}', "[1]", ""],
)
def test_a_folder_that_was_not_prepared_or_is_damaged_is_named(
    tmp_path: Path, manifest: str
) -> None:
    with pytest.raises(DataError, match="no prepared data"):
        load(tmp_path)
    (tmp_path / "manifest.json").write_text(manifest)
    with pytest.raises(DataError, match="damaged"):
        load(tmp_path)
