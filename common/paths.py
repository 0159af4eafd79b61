"""Where fccl keeps what it makes once and uses often."""

from __future__ import annotations

import os
from pathlib import Path


def cache_dir() -> Path:
    """Base models: `$FCCL_CACHE`, else `fccl` in the user's cache folder."""
    if named := os.environ.get("FCCL_CACHE"):
        return Path(named)
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "fccl"
