"""Spool: files of updates between arrival and commit."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from common.errors import RunError, WireError
from common.protocol.layout import TensorLayout
from coordinator.storage.spool import Spool, upload_name
from tests.support.coordinator_records import update_frame

LAYOUT = TensorLayout((("a", (2, 3)),))


def named(content: bytes) -> str:
    return upload_name("s", hashlib.sha256(content).hexdigest())


def test_chunks_are_written_at_their_place_in_any_order(tmp_path: Path) -> None:
    spool, upload = Spool(tmp_path), named(b"abcdef")
    for offset, data in ((4, b"ef"), (0, b"ab"), (2, b"cd"), (0, b"ab")):
        spool.write(upload, offset, data)
    assert spool.frame(upload) == b"abcdef"


def test_bytes_with_another_hash_are_refused(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.write(named(b"right"), 0, b"wrong")
    with pytest.raises(WireError, match="SHA-256"):
        spool.frame(named(b"right"))


def test_a_missing_file_is_a_run_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="it is missing"):
        Spool(tmp_path).frame(named(b""))


def test_the_delta_is_what_was_encoded(tmp_path: Path) -> None:
    spool, content = Spool(tmp_path), update_frame(2.0)
    spool.write(named(content), 0, content)
    assert np.array_equal(spool.delta(named(content), LAYOUT)["a"], np.full((2, 3), 2.0))


def test_a_delta_of_another_layout_is_refused(tmp_path: Path) -> None:
    spool, content = Spool(tmp_path), update_frame(2.0)
    spool.write(named(content), 0, content)
    with pytest.raises(WireError, match="names or shapes of the update"):
        spool.delta(named(content), TensorLayout((("a", (3, 2)),)))


def test_a_sweep_removes_files_without_a_row(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    for name in ("s.known", "s.stray"):
        spool.write(name, 0, b"x")
    spool.sweep({"s.known"})
    assert [path.name for path in tmp_path.iterdir()] == ["s.known"]


def test_dropping_twice_is_harmless(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.write("s.x", 0, b"x")
    spool.drop("s.x")
    spool.drop("s.x")
    assert list(tmp_path.iterdir()) == []
