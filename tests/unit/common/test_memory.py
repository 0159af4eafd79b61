"""Tests of the memory that this process may take and gives back."""

from __future__ import annotations

from pathlib import Path

from common.memory import available_memory, release_free_memory

BLOCKS, SIZE = 2000, 50_000  # of 100 MB in all, each below the size that is mapped on its own


def test_the_smaller_of_machine_and_container_counts(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 2000 kB\nMemAvailable:    1000 kB\n")
    assert available_memory(tmp_path, meminfo) == 1000 * 1024
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("500\n")
    (tmp_path / "memory.stat").write_text("anon 400\ninactive_file 100\n")
    assert available_memory(tmp_path, meminfo) == 1000 * 1024
    (tmp_path / "memory.max").write_text("1500\n")
    assert available_memory(tmp_path, meminfo) == 1500 - 500 + 100
    assert available_memory(tmp_path / "none", tmp_path / "none") is None


def test_control_groups_of_version_1(tmp_path: Path) -> None:
    group = tmp_path / "memory"
    group.mkdir()
    for name, text in {
        "memory.limit_in_bytes": "4096",
        "memory.usage_in_bytes": "1024",
        "memory.stat": "cache 9\ntotal_inactive_file 24",
    }.items():
        (group / name).write_text(text)
    assert available_memory(tmp_path, tmp_path / "none") == 4096 - 1024 + 24


def test_freed_memory_is_given_back() -> None:
    blocks = [bytes(SIZE) for _ in range(BLOCKS)]
    last = bytes(SIZE)  # above the others, so that the heap cannot shrink by itself
    before = _resident()
    del blocks
    release_free_memory()
    assert _resident() < before - BLOCKS * SIZE // 2
    del last


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
