"""Memory of this process: what it may still take, and what it can give back.

The C library keeps what a thread has freed for that thread's next allocations. So the thread that
trains may keep gigabytes after a task, which the thread that evaluates cannot use.
"""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
_MEMINFO = Path("/proc/meminfo")


def available_memory(cgroup: Path = _CGROUP, meminfo: Path = _MEMINFO) -> int | None:
    """Return the available bytes of this machine or, if less, of this container; None if unknown.

    The limit of a container is that of its control group, version 2 or 1. What it has taken
    already counts, except for its cached files, which the kernel drops when memory is short.
    """
    known = [_of_machine(meminfo), _of_group(cgroup)]
    return min((each for each in known if each is not None), default=None)


def release_free_memory() -> None:
    """Return freed memory to the operating system, if the C library can."""
    if (trim := _find_trim()) is not None:
        trim(0)


def _of_machine(meminfo: Path) -> int | None:
    try:
        fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, ValueError, KeyError, IndexError):
        return None


def _of_group(root: Path) -> int | None:
    if (root / "memory.max").exists():
        limit, used, stat = root / "memory.max", root / "memory.current", root / "memory.stat"
        cached = "inactive_file"
    else:
        group = root / "memory"
        limit, used = group / "memory.limit_in_bytes", group / "memory.usage_in_bytes"
        stat, cached = group / "memory.stat", "total_inactive_file"
    try:
        counts = dict(line.split() for line in stat.read_text().splitlines())
        return int(limit.read_text()) - int(used.read_text()) + int(counts.get(cached, 0))
    except (OSError, ValueError):  # "max" is no number
        return None


@cache
def _find_trim() -> ctypes._NamedFuncPointer | None:
    try:
        return ctypes.CDLL(None).malloc_trim  # of glibc
    except (AttributeError, OSError, TypeError):
        return None
