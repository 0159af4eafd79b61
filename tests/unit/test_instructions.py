import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import DataError
from learning.instructions import MAX_CHARS, Instruction, read, write

GOOD = {"instruction": "Add.", "input": "1 and 2", "output": "3"}


def put(folder: Path, text: str | bytes, name: str = "data.jsonl") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_lines_and_a_list_give_the_same_rows(tmp_path: Path) -> None:
    rows = [GOOD, {"instruction": "Sing.", "output": "La"}]
    lines = read(put(tmp_path, "\n".join(map(json.dumps, rows))))
    whole = read(put(tmp_path, json.dumps(rows, indent=1), "data.json"))
    assert lines == whole
    assert lines.rows == (Instruction("Add.", "1 and 2", "3"), Instruction("Sing.", "", "La"))


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ("{oops", "no valid JSON"),
        ('"text"', "no JSON object"),
        ("[1]", "no JSON object"),
        ('{"instruction": 7, "output": "x"}', "instruction is no text"),
        ('{"instruction": "x", "output": "  "}', "output is empty"),
        ('{"input": "x", "output": "y"}', "instruction is empty"),
        ('{"instruction": "x", "output": "\\ud800"}', "output has half of a surrogate pair"),
        ("[" * 100_000, "no valid JSON"),
        (
            json.dumps({"instruction": "x" * (MAX_CHARS + 1), "output": "y"}),
            f"instruction has {MAX_CHARS + 1} characters, more than {MAX_CHARS}",
        ),
    ],
)
def test_a_bad_line_is_skipped_and_named(tmp_path: Path, bad: str, reason: str) -> None:
    got = read(put(tmp_path, f"{json.dumps(GOOD)}\n\n{bad}\n{json.dumps(GOOD)}\n"))
    assert len(got.rows) == 2
    assert [(s.line, s.reason) for s in got.skipped] == [(3, reason)]


def test_a_bad_item_of_a_list_is_named_by_its_place(tmp_path: Path) -> None:
    got = read(put(tmp_path, json.dumps([GOOD, "text", GOOD, None])))
    assert [s.line for s in got.skipped] == [2, 4]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty"),
        (b" \n\n", "empty"),
        (b"\xff\xfe\x00", "not UTF-8"),
        (b"[{]", "no valid JSON list"),
        (b"{}\n{}", "no usable row (row 1: instruction is empty)"),
        (b"[]", "no usable row"),
    ],
)
def test_an_unusable_file_is_one_line_with_a_remedy(
    tmp_path: Path, content: bytes, says: str
) -> None:
    with pytest.raises(DataError) as error:
        read(put(tmp_path, content))
    assert says in error.value.what
    assert error.value.remedy
    assert "\n" not in str(error.value)


def test_a_missing_file_and_a_folder_are_data_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        read(tmp_path / "none.jsonl")
    with pytest.raises(DataError, match="cannot be read"):
        read(tmp_path)


TEXT = st.text(st.characters(exclude_categories=["Cs"]))
FILLED = TEXT.filter(lambda text: bool(text.strip()))
ROWS = st.builds(Instruction, FILLED, TEXT, FILLED, TEXT)


@given(rows=st.lists(ROWS, min_size=1, max_size=5))
def test_what_is_written_is_read_back(
    rows: list[Instruction], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    write(path, tuple(rows))
    assert read(path).rows == tuple(rows)
