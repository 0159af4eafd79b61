"""Where fccl keeps what it makes: once for many uses, or for itself alone."""

from __future__ import annotations

import os
from pathlib import Path


def state_dir() -> Path:
    """What must not be lost: `$FCCL_STATE`, else `fccl` in the user's folder for data."""
    if named := os.environ.get("FCCL_STATE"):
        return Path(named)
    base = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(base) / "fccl"


def cache_dir() -> Path:
    """Base models: `$FCCL_CACHE`, else `fccl` in the user's cache folder."""
    if named := os.environ.get("FCCL_CACHE"):
        return Path(named)
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "fccl"
