"""The name and version of this software."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def software_version() -> str:
    """Return e.g. `fccl 0.1.0`, or `fccl (not installed)` in a checkout."""
    try:
        return f"fccl {version('fccl')}"
    except PackageNotFoundError:
        return "fccl (not installed)"
