"""Memory that a process has freed goes back to the operating system."""

from __future__ import annotations

from pathlib import Path

from common.free_memory import release_free_memory

BLOCKS, SIZE = 2000, 50_000  # of 100 MB in all, each below the size that is mapped on its own


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
