"""Tests of the sources of a run's rows, of the usable rows and of the report of the others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import ConfigError, DataError
from common.protocol.fields import RowKind
from learning.data import row_parser
from learning.data.field_values import UnusableRow
from learning.data.row_types import Instruction, LabelledText, Row
from learning.data.rows import LoadedRows, Omission, SkippedRow
from learning.data.sources import SourceSummary, class_names, load_source, select_usable
from learning.objectives import registry
from tests.support.tiny_encoder import encoder_tokenizer
from tests.support.tiny_model import tiny_tokenizer

LONG = "again and " * 100


def quiet(_: str) -> None: ...


def load(kind: RowKind, source: str, **more: object) -> LoadedRows[Row]:
    options: dict[str, object] = {
        "count": 12, "seed": 3, "columns": {}, "labels": (), "on_message": quiet, **more
    }  # fmt: skip
    return load_source(kind, source, **options)  # type: ignore[arg-type]


def texts(*labels: str) -> list[LabelledText]:
    return [LabelledText("a good film", label) for label in labels]


# Sources


@pytest.mark.parametrize("kind", ["sft", "va", "cls"])
def test_synthetic_rows_have_the_requested_number_and_repeat_by_seed(kind: RowKind) -> None:
    first = load(kind, "synthetic")
    assert len(first.rows) == 12 and not first.skipped
    assert load(kind, "synthetic") == first
    assert load(kind, "synthetic", seed=4) != first


def test_a_mapping_of_columns_binds_only_the_sources_whose_rows_have_the_field(
    tmp_path: Path,
) -> None:
    asked, compared = tmp_path / "asked.jsonl", tmp_path / "compared.jsonl"
    asked.write_text(json.dumps({"instruction": "Say yes.", "reply": "Yes."}))
    compared.write_text(json.dumps({"q": "Well?", "chosen": "Yes.", "rejected": "No."}))
    mapping = {"output": "reply", "prompt": "q"}
    assert load("sft", str(asked), columns=mapping).rows == (Instruction("Say yes.", "", "Yes."),)
    assert len(load("va", str(compared), columns=mapping).rows) == 1
    with pytest.raises(ConfigError, match="no column 'reply'"):
        load("sft", str(compared), columns=mapping)


def test_the_first_skipped_rows_are_named_and_the_others_only_counted(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"instruction": "Say yes.", "output": "Yes."}\n' + "{\n" * 7)
    said: list[str] = []
    rows = load("sft", str(path), on_message=said.append)
    assert len(rows.skipped) == 7
    assert said == [f"skipped {path}:{line}: not valid JSON" for line in range(2, 7)]


# Classes


def test_classes_are_those_of_the_data_numbers_by_value_and_names_after_them() -> None:
    assert class_names(texts("10", "b", "2", "a", "2"), ()) == ("2", "10", "a", "b")


def test_declared_classes_keep_their_order_whether_all_of_them_have_rows_or_not() -> None:
    assert class_names(texts("a", "b"), ("c", "b", "a")) == ("c", "b", "a")


@pytest.mark.parametrize("declared", [(), ("a", "b")])
def test_rows_of_a_single_class_are_refused_whatever_is_declared(declared: tuple[str, ...]) -> None:
    with pytest.raises(DataError, match=r"1 class.*two or more; .*data.labels"):
        class_names(texts("a", "a"), declared)


def test_a_class_that_is_declared_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"data\.labels names 'a' twice"):
        class_names(texts("a", "b"), ("a", "b", "a"))


@pytest.mark.parametrize(
    "names", [[str(i) for i in range(1001)], [f"{i:099d}" for i in range(400)]]
)
def test_classes_that_no_task_could_name_are_refused(names: list[str]) -> None:
    with pytest.raises(DataError, match=f"{len(names)} classes are too many.*label column"):
        class_names(texts(*names), ())
    assert len(class_names(texts(*names[:300]), ())) == 300


# Usable rows


def test_rows_that_do_not_fit_are_left_out_and_counted_beside_those_that_were_unreadable() -> None:
    rows = LoadedRows[Row](
        (
            Instruction("Say yes.", "", "Yes."),
            Instruction(LONG, "", "Yes."),
            Instruction("Say it again.", "", LONG),
        ),
        (SkippedRow(2, "output is empty"), SkippedRow(5, "output is empty")),
    )
    kept, summary = select_usable(
        rows, "d.jsonl", registry.make_objective("sft"), tiny_tokenizer(), 128
    )
    assert kept == [rows.rows[0], rows.rows[2]]
    reasons = {"output is empty": 2, "prompt leaves no room for a response": 1}
    assert summary == SourceSummary("d.jsonl", 5, reasons, 1, 2)
    assert summary.line() == (
        "d.jsonl: 2 of 5 rows can be used; 2: output is empty;"
        " 1: prompt leaves no room for a response; 1 used without their end"
    )
    assert json.loads(json.dumps(summary.fields()))["skipped"] == reasons


def test_rows_that_are_used_in_part_are_counted_by_what_is_left_out() -> None:
    rows = LoadedRows[Row](
        (Instruction(LONG, "", "Yes."), *(Instruction(f"Say {i}.", "", "Yes.") for i in range(3))),
        (),
        (
            Omission(0, 1, "reasoning left out"),
            Omission(1, 2, "reasoning left out"),
            Omission(3, 4, "reasoning left out"),
            Omission(3, 4, "turns after the last answer left out"),
        ),
    )
    _, summary = select_usable(rows, "d", registry.make_objective("sft"), tiny_tokenizer(), 128)
    assert summary.omitted == {"reasoning left out": 2, "turns after the last answer left out": 1}
    assert summary.line().endswith(
        "; 2 used in part: reasoning left out; 1 used in part: turns after the last answer left out"
    )


def test_the_first_rows_that_are_used_in_part_are_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    talk = {"messages": [{"role": role, "content": "x"} for role in ("user", "assistant", "user")]}
    path.write_text(json.dumps(talk) + "\n")
    said: list[str] = []
    load("sft", str(path), on_message=said.append)
    assert said == [f"used in part {path}:1: turns after the last answer left out"]


def test_many_repeated_rows_are_named_and_few_are_only_counted() -> None:
    rows = [Instruction(f"Say {i}.", "", "Yes.") for i in range(20)]
    for repeated, said in ((1, ""), (5, "; 5 repeat an earlier row")):
        loaded = LoadedRows[Row]((*rows, *rows[:1] * repeated), ())
        _, summary = select_usable(
            loaded, "d", registry.make_objective("sft"), tiny_tokenizer(), 128
        )
        assert summary.repeated == repeated
        assert summary.line() == f"d: {20 + repeated} of {20 + repeated} rows can be used{said}"


def test_the_summary_of_a_fully_usable_source_is_one_clause() -> None:
    rows = LoadedRows[Row]((Instruction("Say yes.", "", "Yes."),), ())
    _, summary = select_usable(
        rows, "d.jsonl", registry.make_objective("sft"), tiny_tokenizer(), 128
    )
    assert summary.line() == "d.jsonl: 1 of 1 rows can be used"


def test_a_source_without_usable_rows_is_refused_with_length_and_reasons() -> None:
    rows = LoadedRows[Row]((Instruction(LONG, "", "Yes."),), (SkippedRow(2, "output is empty"),))
    with pytest.raises(DataError) as caught:
        select_usable(rows, "d.jsonl", registry.make_objective("sft"), tiny_tokenizer(), 64)
    assert "no row of d.jsonl can be used at 64 tokens" in caught.value.what
    assert "output is empty, prompt leaves no room" in caught.value.what
    assert "model.max_length" in caught.value.remedy


def test_labels_that_no_row_has_are_the_remedy_where_all_rows_have_others() -> None:
    objective = registry.make_objective("classification", None, ("x", "y"))
    with pytest.raises(DataError) as caught:
        select_usable(
            LoadedRows(texts("good", "bad"), ()), "synthetic", objective, encoder_tokenizer(), 16
        )
    assert caught.value.remedy == "set data.labels to the classes of the rows: bad, good"


NAMES = st.text(min_size=1, max_size=60).filter(lambda name: name.strip() not in ("", "good"))


@given(NAMES)
def test_a_summary_never_repeats_an_undeclared_label(name: str) -> None:
    try:
        row_parser.parse_labelled_text({"text": "a film", "label": name}, {}, ["good", "bad"])
        return  # it was `bad`
    except UnusableRow as reason:
        skipped = SkippedRow(2, str(reason))
    rows = LoadedRows[Row]((LabelledText("a film", "good"),), (skipped,))
    objective = registry.make_objective("classification", None, ("good", "bad"))
    _, summary = select_usable(rows, "d.csv", objective, encoder_tokenizer(), 16)
    assert summary.skipped in (
        {"label is …, which is none of the declared labels": 1},
        {"label is not valid UTF-8 text": 1},
    )


def test_rows_that_are_too_long_by_different_lengths_count_as_one_reason() -> None:
    skipped = []
    for line in (150_000, 150_001):
        with pytest.raises(UnusableRow) as caught:
            row_parser.parse_instruction({"instruction": "x" * line, "output": "y"}, {})
        skipped.append(SkippedRow(line, str(caught.value)))
    rows = LoadedRows[Row]((Instruction("Say yes.", "", "Yes."),), tuple(skipped))
    _, summary = select_usable(rows, "d", registry.make_objective("sft"), tiny_tokenizer(), 128)
    assert list(summary.skipped.values()) == [2]
