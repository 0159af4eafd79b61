"""Return of freed memory to the operating system.

The C library keeps what a thread has freed, for that thread's next allocations. After a task, the
thread that trained keeps gigabytes so, which the thread that evaluates cannot use.
"""

from __future__ import annotations

import ctypes
from functools import cache


def release_free_memory() -> None:
    """Give memory that this process has freed back; do nothing where the C library cannot."""
    if (trim := _find_trim()) is not None:
        trim(0)


@cache
def _find_trim() -> ctypes._NamedFuncPointer | None:
    try:
        return ctypes.CDLL(None).malloc_trim  # of glibc
    except (AttributeError, OSError, TypeError):
        return None
