"""Which fccl this is."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def software_version() -> str:
    """`fccl 0.1.0`, or `fccl (not installed)` from a bare checkout."""
    try:
        return f"fccl {version('fccl')}"
    except PackageNotFoundError:
        return "fccl (not installed)"
