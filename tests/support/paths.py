"""Paths of the checkout that several tests read."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
NOT_INSTALLED = {"tests", "benchmarks"}


def own_packages() -> set[str]:
    """Return the repository's top-level packages without those for development."""
    return {path.parent.name for path in ROOT.glob("*/__init__.py")} - NOT_INSTALLED
