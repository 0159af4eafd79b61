"""Folders for state and caches of the current user."""

from __future__ import annotations

import os
from pathlib import Path


def state_dir() -> Path:
    """Return the folder for state that must not be lost: `$FCCL_STATE`, else the user's data."""
    if named := os.environ.get("FCCL_STATE"):
        return Path(named)
    base = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(base) / "fccl"


def cache_dir() -> Path:
    """Return the folder for base models: `$FCCL_CACHE`, else in the user's cache folder."""
    if named := os.environ.get("FCCL_CACHE"):
        return Path(named)
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "fccl"
