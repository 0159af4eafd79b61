import json
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import ConfigError, DataError
from common.protocol.fields import RowKind
from learning.data import rows
from learning.data.row_types import (
    MAX_CHARS,
    Conversation,
    Instruction,
    LabelledText,
    Message,
    PreferencePair,
    RatedAnswer,
    Row,
)
from learning.data.rows import load, read, write

GOOD: dict[RowKind, dict[str, str]] = {
    "sft": {"instruction": "Add.", "input": "1 and 2", "output": "3"},
    "va": {"prompt": "Greet.", "chosen": "Hello!", "rejected": "What?"},
    "kto": {"prompt": "Greet.", "completion": "Hello!", "label": "good"},
    "cls": {"text": "a fine film", "label": "pos"},
}
KINDS: tuple[RowKind, ...] = get_args(RowKind)


def put(folder: Path, text: str | bytes, name: str = "data.jsonl") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def quiet(_: str) -> None: ...


TEXT = st.text(st.characters(exclude_categories=["Cs"]))
FILLED = TEXT.filter(lambda text: bool(text.strip()))
LABEL = FILLED.map(str.strip).filter(lambda text: len(text) <= 100)
SPOKEN = FILLED | st.sampled_from(["<|im_end|>", " [INST] ", "\n\nHuman: x\n\nAssistant:", "[]"])
CALLS = st.builds(
    lambda names: json.dumps([{"name": n, "arguments": {n: 1}} for n in names], ensure_ascii=False),
    st.lists(TEXT, min_size=1, max_size=2),
)
TOOLS = st.just("") | CALLS
TURNS = st.lists(
    st.builds(Message, st.just("user"), SPOKEN)
    | st.builds(Message, st.sampled_from(["system", "tool"]), TEXT)
    | st.builds(Message, st.just("assistant"), SPOKEN)
    | st.builds(Message, st.just("assistant"), TEXT, CALLS),
    max_size=4,
)
ANSWER = st.builds(Message, st.just("assistant"), SPOKEN)
ASKED = st.builds(Message, st.sampled_from(["user"]), SPOKEN)
PAIRS = st.builds(PreferencePair, FILLED, FILLED, FILLED, TEXT) | st.builds(
    lambda before, turn, *more: PreferencePair((*before, turn), *more),
    TURNS, ASKED, SPOKEN, SPOKEN, TEXT, TOOLS,
)  # fmt: skip
ROWS: dict[RowKind, st.SearchStrategy[Row]] = {
    "sft": st.builds(Instruction, FILLED, TEXT, FILLED, TEXT)
    | st.builds(
        lambda before, answer, *more: Conversation((*before, answer), *more),
        TURNS, ANSWER, TOOLS, TEXT,
    ),
    "va": PAIRS.filter(lambda pair: pair.chosen.strip() != pair.rejected.strip()),
    "kto": st.builds(RatedAnswer, FILLED, FILLED, st.booleans(), TEXT)
    | st.builds(
        lambda before, turn, *more: RatedAnswer((*before, turn), *more),
        TURNS, ASKED, SPOKEN, st.booleans(), TEXT, TOOLS,
    ),
    "cls": st.builds(LabelledText, FILLED, LABEL),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_written_rows_read_back_unchanged(
    kind: RowKind, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    made = data.draw(st.lists(ROWS[kind], min_size=1, max_size=5))
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    write(path, made)
    assert read(kind, path) == rows.LoadedRows(tuple(made), ())


def test_a_written_row_has_the_fields_of_its_record_and_no_empty_optional_field(
    tmp_path: Path,
) -> None:
    path = tmp_path / "rows.jsonl"
    write(
        path,
        [
            Instruction("Sing.", "", "La"),
            Conversation((Message("user", "Sing."), Message("assistant", " La"))),
            PreferencePair("p", "a", "b", "t"),
            PreferencePair((Message("user", "p"),), "a", "b"),
            RatedAnswer("p", "a", False),
            LabelledText("x", "0"),
        ],
    )
    assert [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] == [
        {"instruction": "Sing.", "output": "La"},
        {
            "messages": [
                {"role": "user", "content": "Sing."},
                {"role": "assistant", "content": " La"},
            ]
        },
        {"prompt": "p", "chosen": "a", "rejected": "b", "topic": "t"},
        {"prompt": [{"role": "user", "content": "p"}], "chosen": "a", "rejected": "b"},
        {"prompt": "p", "completion": "a", "label": False},
        {"text": "x", "label": "0"},
    ]


def test_lines_and_a_list_give_the_same_rows(tmp_path: Path) -> None:
    items = [GOOD["sft"], {"instruction": "Sing.", "output": "La"}]
    lines = read("sft", put(tmp_path, "\n".join(map(json.dumps, items))))
    whole = read("sft", put(tmp_path, json.dumps(items, indent=1), "data.json"))
    assert lines == whole
    assert lines.rows == (Instruction("Add.", "1 and 2", "3"), Instruction("Sing.", "", "La"))


@pytest.mark.parametrize(
    ("kind", "bad", "reason"),
    [
        ("sft", "{oops", "not valid JSON"),
        ("sft", '{"instruction": "Add.", "outp', "not valid JSON"),
        ("sft", '"text"', "not a JSON object"),
        ("sft", "[1]", "not a JSON object"),
        ("sft", "[" * 100_000, "not valid JSON"),
        ("sft", '{"instruction": 7, "output": "x"}', "instruction is not text"),
        ("sft", '{"instruction": "x", "output": "  "}', "output is empty"),
        ("sft", '{"input": "x", "output": "y"}', "instruction is missing"),
        ("sft", '{"instruction": "x", "output": "\\ud800"}', "output is not valid UTF-8 text"),
        (
            "sft",
            json.dumps({"instruction": "x" * (MAX_CHARS + 1), "output": "y"}),
            f"instruction has {MAX_CHARS + 1} characters, more than {MAX_CHARS}",
        ),
        ("va", '{"prompt": "p", "chosen": "a"}', "rejected is missing"),
        ("va", '{"prompt": "p", "chosen": "a", "rejected": ""}', "rejected is empty"),
        (
            "va",
            '{"prompt": "p", "chosen": "a\\n", "rejected": " a"}',
            "chosen and rejected are equal",
        ),
        ("cls", '{"text": "x"}', "label is missing"),
        ("cls", '{"text": "x", "label": [1]}', "label is not text"),
        ("cls", '{"text": "x", "label": 0.5}', "label is not text"),
        (
            "cls",
            json.dumps({"text": "x", "label": "y" * 101}),
            "label has 101 characters, more than 100: not a class",
        ),
    ],
)
def test_a_bad_line_is_skipped_and_named(
    tmp_path: Path, kind: RowKind, bad: str, reason: str
) -> None:
    good = json.dumps(GOOD[kind])
    got = read(kind, put(tmp_path, f"{good}\n\n{bad}\n{good}\n"))
    assert len(got.rows) == 2
    assert [(skip.line, skip.reason) for skip in got.skipped] == [(3, reason)]


def test_what_is_left_out_of_a_row_is_named_by_its_line(tmp_path: Path) -> None:
    talk = [{"role": role, "content": "x"} for role in ("user", "assistant", "user")]
    lines = ["{oops", json.dumps(GOOD["sft"]), json.dumps({"messages": talk})]
    got = read("sft", put(tmp_path, "\n".join(lines)))
    assert got.rows[1] == Conversation((Message("user", "x"), Message("assistant", "x")))
    assert got.omissions == (rows.Omission(1, 3, "turns after the last answer left out"),)


def test_a_csv_file_may_hold_messages_as_json(tmp_path: Path) -> None:
    talk = json.dumps([{"role": "user", "content": "a, b"}, {"role": "assistant", "content": "c"}])
    quoted = talk.replace('"', '""')
    got = read("sft", put(tmp_path, f'id,messages\n1,"{quoted}"\n', "data.csv"))
    assert got.rows == (Conversation((Message("user", "a, b"), Message("assistant", "c"))),)


def test_a_bad_item_of_a_list_is_named_by_its_place(tmp_path: Path) -> None:
    items = [GOOD["cls"], "text", GOOD["cls"], None]
    assert [skip.line for skip in read("cls", put(tmp_path, json.dumps(items))).skipped] == [2, 4]


def test_stray_bytes_spoil_only_the_row_whose_fields_they_are_in(tmp_path: Path) -> None:
    lines = (
        b'{"text": "caf\xe9", "label": "a"}\n'
        b'{"text": "tea", "label": "a", "by": "Ren\xe9"}\n'
        b'{"text": "cacao", "label": "b"}\n'
    )
    got = read("cls", put(tmp_path, lines))
    assert got.rows == (LabelledText("tea", "a"), LabelledText("cacao", "b"))
    assert [(skip.line, skip.reason) for skip in got.skipped] == [
        (1, "text is not valid UTF-8 text")
    ]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty"),
        (b" \n\n", "empty"),
        (b"\xef\xbb\xbf", "empty"),
        (b"\xff\xfe\x00", "not UTF-8"),
        (b"\x00" * 100, "no usable row (row 1: not valid JSON)"),
        (b"[{]", "not a valid JSON list"),
        (b"[[[[" * 50_000, "not a valid JSON list"),
        (b"{}\n{}", "no usable row (row 1: instruction is missing)"),
        (b"[]", "no usable row"),
    ],
)
def test_an_unusable_file_is_reported_in_one_line_with_a_remedy(
    tmp_path: Path, content: bytes, says: str
) -> None:
    with pytest.raises(DataError) as error:
        read("sft", put(tmp_path, content))
    assert says in error.value.what
    assert error.value.remedy
    assert "\n" not in str(error.value)


def test_a_missing_file_and_a_folder_are_data_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        read("sft", tmp_path / "none.jsonl")
    with pytest.raises(DataError, match="cannot be read"):
        read("sft", tmp_path)


def test_labels_that_are_numbers_or_truth_values_become_text(tmp_path: Path) -> None:
    items = [{"text": "x", "label": value} for value in (1, True, 2.0, " pos ")]
    got = read("cls", put(tmp_path, "\n".join(map(json.dumps, items))))
    assert [row.label for row in got.rows] == ["1", "True", "2", "pos"]


def test_a_label_outside_the_declared_ones_is_skipped_and_named(tmp_path: Path) -> None:
    path = put(tmp_path, "text,label\nfine,pos\nodd,mixed\n", "data.csv")
    got = load("cls", str(path), labels=["pos", "neg"], on_message=quiet)
    assert got.rows == (LabelledText("fine", "pos"),)
    assert [(skip.line, skip.reason) for skip in got.skipped] == [
        (3, "label is 'mixed', which is none of the declared labels")
    ]


def test_a_source_without_a_declared_label_is_refused_with_the_declared_ones(
    tmp_path: Path,
) -> None:
    path = put(tmp_path, "text,label\nfine,1\nodd,0\n", "data.csv")
    with pytest.raises(DataError, match=r"label is '1'.*; data.labels are pos, neg$"):
        load("cls", str(path), labels=["pos", "neg"], on_message=quiet)


@pytest.mark.parametrize("name", ["data.csv", "data.tsv", "data.jsonl", "data.json"])
def test_a_mapping_says_which_columns_the_fields_are_in(tmp_path: Path, name: str) -> None:
    content = {
        "data.csv": 'id,review_body,stars\n7,"good, and short",5\n',
        "data.tsv": "id\treview_body\tstars\n7\tgood, and short\t5\n",
        "data.jsonl": '{"id": 7, "review_body": "good, and short", "stars": 5}',
        "data.json": '[{"id": 7, "review_body": "good, and short", "stars": 5}]',
    }
    path = put(tmp_path, content[name], name)
    got = load("cls", str(path), {"text": "review_body", "label": "stars"}, on_message=quiet)
    assert got.rows == (LabelledText("good, and short", "5"),)
    with pytest.raises(ConfigError) as error:
        load("cls", str(path), {"text": "body", "label": "stars"}, on_message=quiet)
    assert "no column 'body'" in error.value.what
    assert error.value.remedy == "its columns are id, review_body, stars"


def test_a_mapping_of_an_unknown_field_lists_the_fields(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'body', which is not a field .* text, label"):
        load("cls", str(tmp_path / "unread.csv"), {"body": "text"}, on_message=quiet)


def test_a_source_without_known_columns_lists_required_and_present_columns(
    tmp_path: Path,
) -> None:
    path = put(tmp_path, "phrase,rating\nfine,high\npoor,low\n", "data.csv")
    with pytest.raises(DataError) as error:
        load("cls", str(path), on_message=quiet)
    assert error.value.remedy == (
        "every row needs the fields text and label; its columns are phrase, rating"
    )


def test_no_message_holds_the_text_of_a_row(tmp_path: Path) -> None:
    secret = "the vault is under the stairs"
    items = [
        GOOD["va"],
        {"prompt": secret, "chosen": secret, "rejected": secret},
        {"prompt": [secret], "chosen": [secret], "rejected": [secret]},
        {"prompt": secret * 2000, "chosen": "a", "rejected": secret},
        {"prompt": [{"role": secret, "content": secret}], "chosen": "a", "rejected": "b"},
        {"prompt": secret, "chosen": "a", "rejected": "b", "tools": secret},
    ]
    path = put(tmp_path, "\n".join([*map(json.dumps, items), f'{{"prompt": "{secret}']))
    got = load("va", str(path), on_message=quiet)
    assert [skip.line for skip in got.skipped] == [2, 3, 4, 5, 6, 7]
    assert not any(secret in skip.reason for skip in got.skipped)
    with pytest.raises(DataError) as error:
        load("va", str(put(tmp_path, json.dumps(items[1]))), on_message=quiet)
    assert secret not in str(error.value)
