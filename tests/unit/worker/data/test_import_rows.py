from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from common.errors import ConfigError, DataError
from learning.data import rows
from tests.support.conversations import dialogue
from worker.data.expected_rows import ANY_ROWS, ExpectedRows
from worker.data.import_rows import import_rows, parse_columns
from worker.data.shards import ClientData

Fields = dict[str, object]

SFT: Fields = {"instruction": "Say hello.", "output": "Hello."}
VA: Fields = {"prompt": "Say hello.", "chosen": "Hello!", "rejected": "No."}
KTO: Fields = {"prompt": "Say hello.", "completion": "Hello!", "label": True}
CLS: Fields = {"text": "A fine film.", "label": "positive"}
LEARNS_SFT = ExpectedRows(("sft",))
LEARNS_CLS = ExpectedRows(("cls",), ("positive", "negative"))


def several(row: Fields, count: int = 9) -> list[Fields]:
    """Return different rows."""
    key = next(iter(row))
    return [row | {key: f"{row[key]} {i}"} for i in range(count)]


def file(path: Path, *records: object) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def imported(
    tmp_path: Path,
    *sources: Path,
    columns: Mapping[str, str] | None = None,
    expected: ExpectedRows = ANY_ROWS,
) -> tuple[Path, list[str]]:
    said: list[str] = []
    out = tmp_path / "out"
    found = import_rows(sources, "hospital-a", out, said.append, columns or {}, expected)
    return found, said


@pytest.mark.parametrize(("kind", "row"), [("sft", SFT), ("kto", KTO), ("cls", CLS)])
def test_the_kind_of_rows_follows_from_their_columns(
    tmp_path: Path, kind: str, row: Fields
) -> None:
    out, said = imported(tmp_path, file(tmp_path / "mine.jsonl", *several(row | {"x": 1})))
    assert [path.name for path in out.iterdir()] == [f"hospital-a_{kind}.jsonl"]
    assert said == [f"{tmp_path}/mine.jsonl: 9 {kind} rows"]
    assert out.stat().st_mode & 0o77 == 0


def test_pairs_are_imported_as_pairs_and_as_two_ratings_each(tmp_path: Path) -> None:
    out, said = imported(tmp_path, file(tmp_path / "mine.jsonl", *several(VA)))
    names = sorted(path.name for path in out.iterdir())
    assert names == ["hospital-a_kto.jsonl", "hospital-a_va.jsonl"]
    assert said == [
        f"{tmp_path}/mine.jsonl: 9 va rows",
        f"{tmp_path}/mine.jsonl: 18 kto rows, of 9 pairs",
    ]


def test_instructions_of_which_few_have_a_rating_stay_instructions(tmp_path: Path) -> None:
    rated = SFT | {"rating": "up"}
    out, _ = imported(tmp_path, file(tmp_path / "mine.jsonl", *several(SFT), rated))
    assert len(rows.read("sft", out / "hospital-a_sft.jsonl").rows) == 10


def test_rows_that_are_used_in_part_are_named_and_counted(tmp_path: Path) -> None:
    talk = {"messages": dialogue("Hi", "Hello.", "Bye")}
    path = file(tmp_path / "mine.jsonl", *several(SFT), talk, talk)
    _, said = imported(tmp_path, path)
    reason = "turns after the last answer left out"
    assert said == [
        f"used in part {path}:10: {reason}",
        f"used in part {path}:11: {reason}",
        f"{path}: 11 sft rows; 2 used in part ({reason})",
    ]


def test_rows_that_cannot_be_used_are_named_by_line_and_counted_by_reason(tmp_path: Path) -> None:
    lines = ["instruction,output"]
    lines += [f"Describe thing {i},{'größer' if i % 2 else 'red'}" for i in range(20)]
    path = tmp_path / "half.csv"
    path.write_bytes("\n".join(lines).encode("latin-1"))
    _, said = imported(tmp_path, path)
    reason = "output is not valid UTF-8"
    assert [line.partition(": ")[0] for line in said[:-1]] == [
        f"skipped {path}:{line}" for line in (3, 5, 7, 9, 11)
    ]
    assert said[-1].startswith(f"{path}: 10 sft rows; 10 skipped: {reason}")


def test_files_of_several_forms_are_one_client(tmp_path: Path) -> None:
    first = file(tmp_path / "a.jsonl", *several(SFT, 3))
    second = tmp_path / "b.csv"
    second.write_text("prompt,completion\n" + "".join(f"Add {i},{i}\n" for i in range(4)))
    third = tmp_path / "c.parquet"
    talks = [{"messages": dialogue(f"Hi {i}", "Hello.")} for i in range(5)]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(talks), third)
    out, _ = imported(tmp_path, first, second, third)
    assert len(rows.read("sft", out / "hospital-a_sft.jsonl").rows) == 12
    assert ClientData(out, "hospital-a").clients() == ("hospital-a",)


def test_without_a_file_the_rows_imported_before_are_served(tmp_path: Path) -> None:
    out, _ = imported(tmp_path, file(tmp_path / "a.jsonl", *several(SFT)))
    again, said = imported(tmp_path)
    assert again == out and not said and list(out.iterdir())


def test_new_files_replace_the_rows_imported_before(tmp_path: Path) -> None:
    imported(tmp_path, file(tmp_path / "a.jsonl", *several(SFT)))
    out, _ = imported(tmp_path, file(tmp_path / "b.jsonl", *several(CLS)))
    assert [path.name for path in out.iterdir()] == ["hospital-a_cls.jsonl"]


def test_a_directory_is_served_as_it_is(tmp_path: Path) -> None:
    for name in ("ward1", "ward2", "hospital-a", "heldout"):
        file(tmp_path / f"{name}_sft.jsonl", *several(SFT))
    out, _ = imported(tmp_path, tmp_path)
    assert out == tmp_path
    found = ClientData(out, "hospital-a")
    assert found.clients() == ("hospital-a", "hospital-a.ward1", "hospital-a.ward2")
    assert found.row_counts()["hospital-a.ward1"]["sft"] > 0


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("absent.jsonl", None, "absent.jsonl does not exist"),
        ("empty.jsonl", "", "empty.jsonl is empty"),
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


def test_a_directory_without_client_files_is_an_error(tmp_path: Path) -> None:
    file(tmp_path / "mine.jsonl", *several(SFT))
    with pytest.raises(DataError, match="holds no client's rows; its files are called NAME_sft"):
        imported(tmp_path, tmp_path)


def test_columns_of_other_names_are_mapped(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("frage,antwort\n" + "".join(f"Was ist {i}?,Das ist {i}.\n" for i in range(9)))
    with pytest.raises(DataError, match="its columns are frage, antwort; --columns FIELD=COLUMN"):
        imported(tmp_path, path)
    mapped = parse_columns(["instruction=frage, output=antwort"])
    out, said = imported(tmp_path, path, columns=mapped)
    assert said == [f"{path}: 9 sft rows"]
    assert (out / "hospital-a_sft.jsonl").exists()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["text"], "--columns 'text' is not FIELD=COLUMN"),
        (["text="], "--columns 'text=' is not FIELD=COLUMN"),
        (["text=a,text=b"], "--columns names text twice"),
        (["text=a", "colour=b"], "--columns names 'colour', which is not a field of a row"),
    ],
)
def test_columns_that_make_no_sense_are_refused(words: Sequence[str], line: str) -> None:
    with pytest.raises(ConfigError, match=line):
        parse_columns(words)


def test_a_column_that_the_file_does_not_have_is_refused(tmp_path: Path) -> None:
    path = file(tmp_path / "mine.jsonl", *several(SFT))
    with pytest.raises(ConfigError, match="has no column 'frage', which columns names for instr"):
        imported(tmp_path, path, columns={"instruction": "frage"})


@pytest.mark.parametrize(
    ("rows_of_site", "line"),
    [
        (several(SFT, 2), "site hospital-a has 2 usable sft rows which are too few"),
        ([SFT] * 8, "site hospital-a has 8 usable sft rows, 1 different, which are too few"),
        (several(KTO, 3), "site hospital-a has 3 usable kto rows which are too few"),
    ],
)
def test_too_few_rows_for_three_sides_are_an_error(
    tmp_path: Path, rows_of_site: list[Fields], line: str
) -> None:
    with pytest.raises(DataError, match=line) as caught:
        imported(tmp_path, file(tmp_path / "mine.jsonl", *rows_of_site))
    assert "give at least" in caught.value.remedy
    assert not (tmp_path / "out").exists()


def test_the_clients_of_a_directory_are_checked_too(tmp_path: Path) -> None:
    file(tmp_path / "ward1_sft.jsonl", *several(SFT))
    file(tmp_path / "ward2_sft.jsonl", *several(SFT, 2))
    with pytest.raises(DataError, match=r"hospital-a\.ward2 has 2 usable sft rows"):
        imported(tmp_path, tmp_path)


def test_rows_of_a_kind_that_the_run_does_not_learn_from_are_an_error(tmp_path: Path) -> None:
    path = file(tmp_path / "site.jsonl", *several(CLS))
    line = (
        r"site\.jsonl has cls rows \(text, label\), but the run learns from sft: instruction,"
        " output"
    )
    with pytest.raises(DataError, match=line):
        imported(tmp_path, path, expected=LEARNS_SFT)


def test_rows_imported_before_are_checked_against_the_run(tmp_path: Path) -> None:
    imported(tmp_path, file(tmp_path / "site.jsonl", *several(CLS)))
    with pytest.raises(DataError, match=r"has cls rows .* but the run learns from sft"):
        imported(tmp_path, expected=LEARNS_SFT)


def test_a_kind_of_the_run_that_a_site_lacks_is_reported(tmp_path: Path) -> None:
    path = file(tmp_path / "site.jsonl", *several(SFT))
    _, said = imported(tmp_path, path, expected=ExpectedRows(("sft", "va")))
    assert said[-1] == "hospital-a has no va rows: it sits out those phases"


def test_labels_that_the_run_does_not_have_are_named_and_counted(tmp_path: Path) -> None:
    other = several(CLS | {"label": "neutral"}, 4)
    path = file(tmp_path / "site.jsonl", *several(CLS), *other)
    out, said = imported(tmp_path, path, expected=LEARNS_CLS)
    assert said[0] == (
        f"skipped 4 cls rows of {path} with labels that the run does not have: 'neutral' 4;"
        " its labels are positive, negative"
    )
    assert len(rows.read("cls", out / "hospital-a_cls.jsonl").rows) == 9


def test_rows_with_only_unknown_labels_are_an_error(tmp_path: Path) -> None:
    path = file(tmp_path / "site.jsonl", *several(CLS | {"label": "gut"}))
    with pytest.raises(DataError, match="only labels that the run does not have: 'gut' 9"):
        imported(tmp_path, path, expected=LEARNS_CLS)
