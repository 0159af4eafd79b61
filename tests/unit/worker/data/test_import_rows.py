from __future__ import annotations

import json
from pathlib import Path

import pytest

from common.errors import DataError
from learning.data import rows
from tests.support.conversations import dialogue
from worker.data.import_rows import import_rows
from worker.data.shards import ClientData

SFT = {"instruction": "Say hello.", "output": "Hello."}
VA = {"prompt": "Say hello.", "chosen": "Hello!", "rejected": "No."}
KTO = {"prompt": "Say hello.", "completion": "Hello!", "label": True}
CLS = {"text": "A fine film.", "label": "positive"}


def file(path: Path, *records: object) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def imported(tmp_path: Path, *sources: Path) -> tuple[Path, list[str]]:
    said: list[str] = []
    return import_rows(sources, "hospital-a", tmp_path / "out", said.append), said


@pytest.mark.parametrize(("kind", "row"), [("sft", SFT), ("kto", KTO), ("cls", CLS)])
def test_the_kind_of_rows_follows_from_their_columns(
    tmp_path: Path, kind: str, row: object
) -> None:
    out, said = imported(tmp_path, file(tmp_path / "mine.jsonl", row, row | {"x": 1}))  # type: ignore[operator]
    assert [path.name for path in out.iterdir()] == [f"hospital-a_{kind}.jsonl"]
    assert said == [f"{tmp_path}/mine.jsonl: 2 {kind} rows"]
    assert out.stat().st_mode & 0o77 == 0


def test_pairs_are_imported_as_pairs_and_as_two_ratings_each(tmp_path: Path) -> None:
    out, said = imported(tmp_path, file(tmp_path / "mine.jsonl", VA, VA))
    names = sorted(path.name for path in out.iterdir())
    assert names == ["hospital-a_kto.jsonl", "hospital-a_va.jsonl"]
    assert said == [
        f"{tmp_path}/mine.jsonl: 2 va rows",
        f"{tmp_path}/mine.jsonl: 4 kto rows, of 2 pairs",
    ]


def test_instructions_of_which_few_have_a_rating_stay_instructions(tmp_path: Path) -> None:
    rated = SFT | {"rating": "up"}
    out, _ = imported(tmp_path, file(tmp_path / "mine.jsonl", SFT, SFT, rated))
    assert len(rows.read("sft", out / "hospital-a_sft.jsonl").rows) == 3


def test_rows_that_are_used_in_part_are_counted_with_what_is_left_out(tmp_path: Path) -> None:
    talk = {"messages": dialogue("Hi", "Hello.", "Bye")}
    _, said = imported(tmp_path, file(tmp_path / "mine.jsonl", SFT, talk, talk))
    assert said == [
        f"{tmp_path}/mine.jsonl: 3 sft rows, 2 used in part (turns after the last answer left out)"
    ]


def test_several_files_are_one_client(tmp_path: Path) -> None:
    first = file(tmp_path / "a.jsonl", *[SFT] * 3)
    second = file(tmp_path / "b.jsonl", *[SFT] * 2)
    prefs = file(tmp_path / "c.jsonl", VA)
    out, _ = imported(tmp_path, first, second, prefs)
    assert len(rows.read("sft", out / "hospital-a_sft.jsonl").rows) == 5
    assert ClientData(out, "hospital-a").clients() == ("hospital-a",)


def test_without_a_file_the_rows_imported_before_are_served(tmp_path: Path) -> None:
    out, _ = imported(tmp_path, file(tmp_path / "a.jsonl", SFT))
    again, said = imported(tmp_path)
    assert again == out and not said and list(out.iterdir())


def test_new_files_replace_the_rows_imported_before(tmp_path: Path) -> None:
    imported(tmp_path, file(tmp_path / "a.jsonl", SFT))
    out, _ = imported(tmp_path, file(tmp_path / "b.jsonl", CLS))
    assert [path.name for path in out.iterdir()] == ["hospital-a_cls.jsonl"]


def test_a_directory_is_served_as_it_is(tmp_path: Path) -> None:
    for name in ("ward1", "ward2", "hospital-a", "heldout"):
        file(tmp_path / f"{name}_sft.jsonl", *[SFT] * 9)
    out, _ = imported(tmp_path, tmp_path)
    assert out == tmp_path
    found = ClientData(out, "hospital-a")
    assert found.clients() == ("hospital-a", "hospital-a.ward1", "hospital-a.ward2")
    assert found.row_counts()["hospital-a.ward1"]["sft"] > 0


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("absent.jsonl", None, "absent.jsonl does not exist"),
        ("empty.jsonl", "", "empty.jsonl has no row that can be learned from"),
        ("odd.jsonl", '{"a": 1}\n', "odd.jsonl has no row that can be learned from"),
        ("bytes.jsonl", "\x00\x01", "bytes.jsonl has no row that can be learned from"),
    ],
)
def test_a_source_without_a_usable_row_is_an_error_with_a_remedy(
    tmp_path: Path, name: str, content: str | None, line: str
) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=line) as caught:
        imported(tmp_path, tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_site_without_any_rows_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="site hospital-a has no rows yet; name a file"):
        imported(tmp_path)
