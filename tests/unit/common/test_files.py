"""Files of JSON lines: appended and read from the end, whatever a crash has left there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from common import files
from common.files import append_jsonl, read_jsonl, read_jsonl_backwards


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the path of a file of lines that are shorter and longer than a block."""
    monkeypatch.setattr(files, "TAIL_BYTES", 16)
    path = tmp_path / "ledger.jsonl"
    append_jsonl(path, [{"n": n, "text": "ü" * (7 * n)} for n in range(6)])
    return path


def test_lines_are_read_from_both_ends(ledger: Path) -> None:
    lines = list(read_jsonl(ledger))
    assert [line["n"] for line in lines] == list(range(6))
    assert list(read_jsonl_backwards(ledger)) == lines[::-1]
    missing = ledger.with_name("missing")
    assert list(read_jsonl(missing)) == list(read_jsonl_backwards(missing)) == []


def test_a_line_that_a_crash_has_cut_anywhere_is_replaced_by_the_next(ledger: Path) -> None:
    whole = ledger.read_bytes()
    for length in range(len(whole)):
        ledger.write_bytes(whole[:length])
        kept = whole[:length].count(b"\n")
        assert len(list(read_jsonl(ledger))) == kept
        assert len(list(read_jsonl_backwards(ledger))) == kept
        append_jsonl(ledger, [{"n": "new"}])
        lines = [json.loads(line) for line in ledger.read_bytes().splitlines()]
        assert len(lines) == kept + 1 and lines[-1] == {"n": "new"}
