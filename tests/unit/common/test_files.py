"""Private files, errors of the disk and texts of people."""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from common import disk_errors
from common.errors import DiskError
from common.files import append_jsonl, apply_umask, make_private, tighten, write_durable
from common.text import one_line


@pytest.fixture(autouse=True)
def open_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_new_files_and_folders_are_private_whatever_the_umask(tmp_path: Path) -> None:
    make_private(tmp_path / "a" / "b")
    write_durable(tmp_path / "a" / "b" / "file", b"rows")
    append_jsonl(tmp_path / "a" / "b" / "lines", [{"row": 1}])
    assert {mode(tmp_path / "a"), mode(tmp_path / "a" / "b")} == {0o700}
    assert {mode(path) for path in (tmp_path / "a" / "b").iterdir()} == {0o600}


def test_what_an_earlier_release_left_open_is_closed_and_links_are_not_followed(
    tmp_path: Path,
) -> None:
    (tmp_path / "run" / "clients").mkdir(parents=True)
    (tmp_path / "run" / "clients" / "rows").touch()
    (tmp_path / "model").touch()
    (tmp_path / "run" / "link").symlink_to(tmp_path / "model")
    tighten(tmp_path / "run")
    assert mode(tmp_path / "run") == mode(tmp_path / "run" / "clients") == 0o700
    assert mode(tmp_path / "run" / "clients" / "rows") == 0o600
    assert mode(tmp_path / "model") == 0o666


def test_an_export_has_the_permissions_that_the_umask_grants(tmp_path: Path) -> None:
    os.umask(0o027)
    make_private(tmp_path / "out" / "model")
    write_durable(tmp_path / "out" / "card", b"")
    apply_umask(tmp_path / "out")
    assert (mode(tmp_path / "out" / "model"), mode(tmp_path / "out" / "card")) == (0o750, 0o640)


def test_a_write_that_fails_leaves_nothing_and_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "lines").mkdir()
    with pytest.raises(DiskError, match="lines: Is a directory"):
        append_jsonl(tmp_path / "lines", [{}])
    with pytest.raises(IsADirectoryError):
        write_durable(tmp_path / "lines", b"content")
    assert [path.name for path in tmp_path.iterdir()] == ["lines"]


def test_errors_of_sqlite_are_explained_and_mistakes_of_the_program_are_not(tmp_path: Path) -> None:
    (tmp_path / "db").write_bytes(b"no database at all, but some bytes" * 9)
    with pytest.raises(sqlite3.DatabaseError) as damaged:
        sqlite3.connect(tmp_path / "db").execute("SELECT * FROM t")
    found = disk_errors.translate(damaged.value, tmp_path / "db")
    assert found is not None and "it is no database; restore it" in str(found)
    assert not disk_errors.is_refusal(damaged.value)
    with pytest.raises(sqlite3.OperationalError) as mistake:
        sqlite3.connect(":memory:").execute("SELECT * FROM t")
    assert disk_errors.translate(mistake.value) is None
    assert disk_errors.translate(ConnectionRefusedError(111, "refused")) is None


@pytest.mark.parametrize("text", ["می‌خواهم", "क्‍ष", "👩‍👩‍👧‍👦🏴󠁧󠁢󠁥󠁮󠁧󠁿", "שלום", "é\u0301", "全　角"])
def test_texts_of_people_are_not_changed(text: str) -> None:
    assert one_line(text) == text


@pytest.mark.parametrize("char", ["\x1b", "\n", "\x9b", "\u2028", "\u202e", "\u2066", "\ufeff"])
def test_controls_and_overrides_become_spaces(char: str) -> None:
    assert one_line(f"a{char}b") == "a b"
