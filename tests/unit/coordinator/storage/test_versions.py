"""Version directories hold exactly what was broadcast, complete or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from common.errors import RunError
from common.protocol import codec
from common.protocol.adapter_frame import unpack_adapter
from common.protocol.fields import CodecName
from common.protocol.tasks import BlobRef
from common.protocol.tensors import Tensors
from common.run_directory.version_files import ADAPTER_FILES
from coordinator.storage.versions import Versions

WEIGHTS, CONFIG = ADAPTER_FILES

THETA: Tensors = {
    "z.lora_B": np.full((3, 2), 1 + 2**-9, np.float32),
    "a.lora_A": np.arange(6, dtype=np.float32).reshape(2, 3),
}


def versions(path: Path, name: CodecName = "fp32") -> Versions:
    return Versions(path, {"peft_type": "LORA", "r": 2}, name)


def write(store: Versions, version: int, tensors: Tensors) -> BlobRef:
    """Stage and place a version; the coordinator writes a journal row in between."""
    ref = store.stage(version, tensors)
    store.place(version, ref.sha256)
    return ref


def names(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.iterdir())


@pytest.mark.parametrize("name", ["fp32", "bf16"])
def test_a_version_holds_what_its_broadcast_decodes_to(tmp_path: Path, name: CodecName) -> None:
    store = versions(tmp_path, name)
    ref = write(store, 0, THETA)
    frame = store.frame(0)
    assert (ref.sha256, ref.nbytes) == (codec.digest(frame), len(frame))
    _, broadcast = unpack_adapter(frame)
    stored = store.read(0)
    assert broadcast.keys() == stored.keys() == THETA.keys()
    assert all(np.array_equal(broadcast[key], stored[key]) for key in stored)
    assert np.array_equal(stored["z.lora_B"], THETA["z.lora_B"]) == (name == "fp32")


def test_a_reopened_version_gives_the_same_frame(tmp_path: Path) -> None:
    ref = write(versions(tmp_path, "bf16"), 3, THETA)
    assert codec.digest(versions(tmp_path, "bf16").frame(3)) == ref.sha256


def test_a_version_is_a_peft_directory(tmp_path: Path) -> None:
    write(versions(tmp_path), 12, THETA)
    assert names(tmp_path) == ["000012"]
    assert names(tmp_path / "000012") == sorted([CONFIG, WEIGHTS])
    assert json.loads((tmp_path / "000012" / CONFIG).read_text()) == {"peft_type": "LORA", "r": 2}


def test_a_staged_version_is_named_by_its_content_until_it_is_placed(tmp_path: Path) -> None:
    store = versions(tmp_path)
    ref = store.stage(1, THETA)
    assert names(tmp_path) == [f".made-{ref.sha256}"]
    assert store.stage(1, THETA) == ref  # perhaps by another coordinator
    other = store.stage(1, {"a": np.zeros(2, np.float32)})
    assert names(tmp_path) == sorted([f".made-{ref.sha256}", f".made-{other.sha256}"])
    store.place(1, ref.sha256)
    assert names(tmp_path) == [f".made-{other.sha256}", "000001"]
    assert codec.digest(store.frame(1)) == ref.sha256


def test_a_placed_version_is_never_replaced(tmp_path: Path) -> None:
    store = versions(tmp_path)
    ref = write(store, 1, THETA)
    before = (tmp_path / "000001").stat().st_ino
    store.place(1, ref.sha256)  # nothing is staged: a successor has placed it
    store.stage(1, THETA)
    store.place(1, ref.sha256)  # staged again by a coordinator that was replaced
    assert (tmp_path / "000001").stat().st_ino == before
    assert codec.digest(store.frame(1)) == ref.sha256


def test_a_journaled_version_that_was_staged_is_rolled_forward(tmp_path: Path) -> None:
    store = versions(tmp_path)
    journaled = {0: write(store, 0, THETA).sha256, 1: store.stage(1, THETA).sha256, 2: "f" * 64}
    lost = store.stage(2, {"a": np.zeros(2, np.float32)}).sha256
    store.roll_forward(journaled)
    assert names(tmp_path) == [f".made-{lost}", "000000", "000001"]
    assert codec.digest(store.frame(1)) == journaled[1]
    store.roll_forward(journaled)
    store.sweep(2)
    assert names(tmp_path) == ["000000", "000001"]


def test_a_version_with_values_that_are_not_finite_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="version 1: tensor a has values that are not finite"):
        versions(tmp_path).stage(1, {"a": np.array([np.inf], np.float32)})
    assert names(tmp_path) == []


def test_an_error_of_the_disk_is_a_run_error(tmp_path: Path) -> None:
    store = versions(tmp_path / "versions")
    (tmp_path / "versions").touch()  # a file, where the directory should be
    with pytest.raises(RunError, match="Not a directory"):
        store.stage(0, THETA)


@pytest.mark.parametrize("content", [None, b"", b"garbage" * 20])
def test_a_version_that_does_not_parse_is_named(tmp_path: Path, content: bytes | None) -> None:
    store = versions(tmp_path)
    write(store, 0, THETA)
    path = tmp_path / "000000" / WEIGHTS
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(RunError, match="000000"):
        store.read(0)


def test_a_sweep_removes_temporary_directories_and_versions_without_a_row(tmp_path: Path) -> None:
    store = versions(tmp_path)
    for version in (0, 1, 2):
        write(store, version, THETA)
    store.stage(3, THETA)
    (tmp_path / ".tmp-000003").mkdir()
    (tmp_path / ".tmp-000003" / "torn").touch()
    (tmp_path / "notes.txt").touch()  # a user's file: left alone
    store.sweep(1)
    assert names(tmp_path) == ["000000", "000001", "notes.txt"]


def test_retaining_removes_all_other_versions(tmp_path: Path) -> None:
    store = versions(tmp_path)
    for version in range(4):
        write(store, version, THETA)
    store.retain({0, 3, 9})
    assert names(tmp_path) == ["000000", "000003"]
