import contextlib
import csv
import gzip
import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import DataError
from learning.data import csv_records, tables
from learning.data.row_types import LabelledText
from learning.data.rows import read
from learning.data.tables import RawRecord, open_table

NAMES = ("text", "label")


def put(folder: Path, content: str | bytes, name: str) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def read_all(
    path: Path, pair: tuple[str, str] | None = ("text", "label")
) -> list[tuple[int, RawRecord | str]]:
    return list(open_table(path, NAMES, pair).records)


def labels(path: Path) -> list[str]:
    return [str(record["label"]) for _, record in read_all(path) if not isinstance(record, str)]


def test_quotes_delimit_texts_in_csv_and_are_text_in_tsv(tmp_path: Path) -> None:
    csv = put(tmp_path, 'label,text\r\n1,"a ""fine"", long\r\nfilm"\r\n0,dull\r\n', "data.csv")
    tsv = put(tmp_path, 'label\ttext\n1\t"a fine film\n0\tdull "film"\n', "data.tsv")
    assert read_all(csv) == [
        (2, {"label": "1", "text": 'a "fine", long\r\nfilm'}),
        (4, {"label": "0", "text": "dull"}),
    ]
    assert read_all(tsv) == [
        (2, {"label": "1", "text": '"a fine film'}),
        (3, {"label": "0", "text": 'dull "film"'}),
    ]


@pytest.mark.parametrize(
    "content",
    [
        "fine\t1\ndull\t0\n",
        "\ufefffine\t1\ndull\t0",
        "1\tfine\n0\tdull\n",
        "fine\tgood\ndull\tbad\npoor\tbad\nwell\tgood\n",
        "good\tfine\nbad\tdull\nbad\tpoor\ngood\twell\n",
    ],
)
def test_two_columns_without_a_header_are_text_and_label(tmp_path: Path, content: str) -> None:
    got = read("cls", put(tmp_path, content, "data.tsv"))
    assert got.rows[0] in (LabelledText("fine", "1"), LabelledText("fine", "good"))
    assert len(got.rows) == content.strip().count("\n") + 1
    assert got.skipped == ()


@pytest.mark.parametrize(
    ("content", "columns"),
    [
        ("text\tlabel\nfine\t1\ndull\t1\n", ("text", "label")),
        ("Label\tSentence\n1\tfine\n1\tdull\n", ("Label", "Sentence")),
        ("phrase\trating\nfine\t1\ndull\t1\n", ("phrase", "rating")),
        ("fine\t1\tx\ndull\t1\tx\n", ("fine", "1", "x")),
    ],
)
def test_a_first_line_of_names_or_of_other_than_two_fields_is_a_header(
    tmp_path: Path, content: str, columns: tuple[str, ...]
) -> None:
    path = put(tmp_path, content, "data.tsv")
    assert open_table(path, NAMES, ("text", "label")).columns == columns


def test_a_file_whose_pair_is_not_expected_has_a_header(tmp_path: Path) -> None:
    path = put(tmp_path, "fine,1\ndull,1\n", "data.csv")
    assert open_table(path, NAMES).columns == ("fine", "1")


def test_malformed_lines_are_reported_and_the_next_ones_read(tmp_path: Path) -> None:
    long = f'"{"e" * 100_000}\nf,2\n{"e" * 100_000}",1'
    lines = ["text,label", "a,1", "torn", "b\rc,1", "d\0,1", long, "", "g,3", '"h"i,1', "j,1"]
    assert read_all(put(tmp_path, "\n".join(lines), "data.csv")) == [
        (2, {"text": "a", "label": "1"}),
        (3, "1 fields where there are 2 columns"),
        (4, "not valid CSV"),
        (5, "NUL characters"),
        (6, csv_records.TOO_LONG),
        (10, {"text": "g", "label": "3"}),
        (11, csv_records.BROKEN_QUOTE),
    ]


def test_an_unclosed_quote_does_not_spoil_the_rows_before_it(tmp_path: Path) -> None:
    assert read_all(put(tmp_path, 'text,label\na,1\n"b,2\nc,3\n', "data.csv")) == [
        (2, {"text": "a", "label": "1"}),
        (3, csv_records.UNCLOSED_QUOTE),
    ]


CELLS = st.text(st.sampled_from('ab1,;" \n\r\t'), max_size=6) | st.just("e" * 300)
RECORDS = st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=6)


@given(records=RECORDS, quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
def test_the_rows_of_any_csv_are_its_records_or_skipped_as_a_whole(
    records: list[tuple[str, str]], quoting: Literal[0, 1], tmp_path_factory: pytest.TempPathFactory
) -> None:
    text = io.StringIO()
    csv.writer(text, quoting=quoting).writerows([("text", "label"), *records])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csv_records, "MAX_RECORD", 200)
        patch.setattr(tables, "MAX_LINE", 7)
        path = put(tmp_path_factory.mktemp("tables"), text.getvalue(), "data.csv")
        got = [record for _, record in read_all(path, None)]
    filled = [pair for pair in records if any(cell.strip() for cell in pair)]
    short = [pair for pair in filled if sum(map(len, pair)) < 100]
    assert [tuple(record.values()) for record in got if isinstance(record, Mapping)] == short
    assert len(got) == len(filled)


@given(text=st.text(st.sampled_from('a,"\n\r'), max_size=30))
def test_no_line_inside_a_cell_of_any_text_becomes_a_row(
    text: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = put(tmp_path_factory.mktemp("tables"), f"text,label\n{text}", "data.csv")
    got = [record for _, record in read_all(path, None) if isinstance(record, Mapping)]
    rows = csv.reader(re.findall(r"[^\n]*\n|[^\n]+", text), strict=True)
    expected = []
    with contextlib.suppress(csv.Error):  # behind it the two need not agree
        expected.extend(row for row in rows if len(row) == 2 and any(c.strip() for c in row))
    assert [list(record.values()) for record in got][: len(expected)] == expected


def test_an_overlong_line_is_skipped_and_the_next_one_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "MAX_LINE", 40)
    lines = [json.dumps({"text": text, "label": "1"}) for text in ("a", "b" * 100, "c")]
    assert read_all(put(tmp_path, "\n".join(lines), "data.jsonl")) == [
        (1, {"text": "a", "label": "1"}),
        (2, "not valid JSON"),
        (3, {"text": "c", "label": "1"}),
    ]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("data.csv", b"text,text\na,b\n", "twice"),
        ("data.csv", b'"text\n', "no readable header"),
        ("data.jsonl", gzip.compress(b"{}", mtime=0), "gzip"),
        ("data.csv", b"PK\x03\x04 a workbook", "Excel"),
        ("data.jsonl", b"PAR1 and more", "is Parquet"),
        ("data.jsonl", '{"text": "a"}'.encode("utf-16-le"), "UTF-16LE"),
        ("data.csv", "text,label\n".encode("utf-16-be"), "UTF-16BE"),
        ("data.json", b'{\n"text": "a"\n}\n{', "neither JSON nor one object per line"),
        ("data.tsv", "text\tlabel\n".encode("utf-16"), "UTF-16"),
        ("data.parquet", b"PAR1 and nothing else", "not a Parquet"),
        ("data.parquet", b"text,label\na,b\n", "not a Parquet"),
        ("data.parquet", b"", "empty"),
    ],
)
def test_a_malformed_file_is_reported_in_one_line_with_a_remedy(
    tmp_path: Path, name: str, content: bytes, says: str
) -> None:
    with pytest.raises(DataError, match=says) as error:
        read_all(put(tmp_path, content, name))
    assert error.value.remedy
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("data.csv", "text;label\r\na, b;1\r\n"),
        ("data.csv", "sep=;\r\ntext;label\r\na, b;1\r\n"),
        ("data.csv", "text\tlabel\na, b\t1\n"),
        ("data.csv", 'text,label\r"a, b",1\r'),
        ("data.tsv", "text\tlabel\ra, b\t1\r"),
        ("data.jsonl", '{"text": "a, b", "label": "1"}\r'),
        ("data.json", '{\n  "text": "a, b",\n  "label": "1"\n}\n'),
        ("data.json", '{"version": 1, "data": [{"text": "a, b", "label": "1"}]}'),
        ("data.json", '{"version": [1], "data": [\n{"text": "a, b", "label": "1"}]}'),
    ],
)
def test_forms_that_leave_no_doubt_are_read(tmp_path: Path, name: str, content: str) -> None:
    got = [record for _, record in read_all(put(tmp_path, content, name))]
    assert got == [{"text": "a, b", "label": "1"}]


def test_a_row_with_a_list_is_no_file_of_rows(tmp_path: Path) -> None:
    row = {"messages": [{"role": "user", "content": "a"}]}
    path = put(tmp_path, json.dumps(row), "data.jsonl")
    assert list(open_table(path, ("messages",)).records) == [(1, row)]


def test_text_of_windows_is_named_with_its_remedy(tmp_path: Path) -> None:
    path = put(tmp_path, "text,label\ngrün,1\n".encode("cp1252"), "data.csv")
    with pytest.raises(DataError, match="iconv -f WINDOWS-1252"):
        read("cls", path)


def parquet(folder: Path, columns: dict[str, Sequence[object]] | pa.Table) -> Path:
    path = folder / "data.parquet"
    pq.write_table(columns if isinstance(columns, pa.Table) else pa.table(columns), path)
    return path


def test_parquet_is_read_in_batches_and_only_in_the_named_columns(tmp_path: Path) -> None:
    texts = [f"text {i}" for i in range(1000)]
    path = parquet(tmp_path, {"Text": texts, "label": [1, 0] * 500, "vector": [[0.5]] * 1000})
    table = open_table(path, NAMES)
    got = list(table.records)
    assert table.columns == ("Text", "label", "vector")
    assert got[999] == (1000, {"Text": "text 999", "label": 0})
    assert len(got) == 1000


def test_a_text_of_parquet_that_is_not_utf8_spoils_its_row_alone(tmp_path: Path) -> None:
    raw = pa.array([b"a", b"\xff", b"c"]).cast(pa.string(), safe=False)
    path = parquet(tmp_path, pa.table({"text": raw, "label": [1, 2, 3]}))
    assert read_all(path) == [
        (1, {"text": "a", "label": 1}),
        (2, "not valid UTF-8 text"),
        (3, {"text": "c", "label": 3}),
    ]


def test_parquet_that_datasets_wrote_gives_the_names_of_its_classes(tmp_path: Path) -> None:
    feature = {"names": ["neg", "pos"], "_type": "ClassLabel"}
    metadata = {"huggingface": json.dumps({"info": {"features": {"label": feature}}})}
    table = pa.table({"text": ["a", "b", "c"], "label": [1, 0, -1]})
    got = read("cls", parquet(tmp_path, table.replace_schema_metadata(metadata)))
    assert got.rows == (LabelledText("a", "pos"), LabelledText("b", "neg"))
    assert [(skip.line, skip.reason) for skip in got.skipped] == [(3, "label is missing")]


@pytest.mark.parametrize("metadata", ["", "[]", "{", '{"info": {"features": [1]}}', "[" * 10**5])
def test_malformed_metadata_of_parquet_is_ignored(tmp_path: Path, metadata: str) -> None:
    table = pa.table({"text": ["a"], "label": ["x"]})
    path = parquet(tmp_path, table.replace_schema_metadata({"huggingface": metadata}))
    assert labels(path) == ["x"]


def test_a_parquet_file_that_is_damaged_inside_is_a_data_error(tmp_path: Path) -> None:
    path = parquet(tmp_path, {"text": ["abc" * 100 + str(i) for i in range(500)]})
    content = bytearray(path.read_bytes())
    content[10:2000] = b"\xff" * 1990
    path.write_bytes(content)
    with pytest.raises(DataError, match="not a Parquet"):
        read_all(path)


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".csv", ".tsv", ".parquet"])
@given(content=st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_give_rows_or_a_data_error(
    suffix: str, content: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = put(tmp_path_factory.mktemp("tables"), content, f"data{suffix}")
    try:
        got = read("cls", path)
    except DataError as error:
        assert "\n" not in str(error)
        return
    assert got.rows
