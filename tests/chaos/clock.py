"""Wall clock of a process that a test moves: `time.time` plus the offset in a file.

The variable FCCL_CHAOS_CLOCK names the file, which holds a number of seconds. `datetime.now` stays
as it is: fccl uses it in names and for certificates only.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

VARIABLE = "FCCL_CHAOS_CLOCK"
REREAD_S = 0.05


def set_offset(path: Path, seconds: float) -> None:
    """Move the clock of the processes that use a file."""
    temporary = path.with_suffix(".new")
    temporary.write_text(str(seconds))
    temporary.replace(path)


def install() -> None:
    """Replace `time.time` in this process, if the environment names a file."""
    if VARIABLE not in os.environ:
        return
    path, real = Path(os.environ[VARIABLE]), time.time
    offset, due = 0.0, 0.0

    def shifted() -> float:
        nonlocal offset, due
        if time.monotonic() >= due:
            due = time.monotonic() + REREAD_S
            offset = float(path.read_text()) if path.exists() else 0.0
        return real() + offset

    time.time = shifted
