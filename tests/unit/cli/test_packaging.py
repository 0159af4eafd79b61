"""What is installed is what the repository holds, room by room."""

from __future__ import annotations

import tomllib
from importlib import import_module, metadata
from pathlib import Path

from tests.support.paths import ROOT

NOT_INSTALLED = {"tests", "benchmarks"}


def own_packages() -> set[str]:
    """The repository's top-level packages, but for those that only development needs."""
    return {path.parent.name for path in ROOT.glob("*/__init__.py")} - NOT_INSTALLED


def listed_packages() -> set[str]:
    with (ROOT / "pyproject.toml").open("rb") as file:
        return set(tomllib.load(file)["tool"]["setuptools"]["packages"])


def test_pyproject_lists_exactly_the_repositorys_own_packages() -> None:
    nested = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for name in own_packages()
        for path in (ROOT / name).glob("**/__init__.py")
    }
    assert listed_packages() == nested


def test_the_installed_distribution_has_exactly_these_top_level_modules() -> None:
    installed = {
        module for module, owners in metadata.packages_distributions().items() if "fccl" in owners
    }
    visible = {module for module in installed if not module.startswith("__editable__")}
    assert visible == own_packages()


def test_the_packages_that_are_imported_are_the_repositorys_own() -> None:
    for name in sorted(own_packages()):
        found = import_module(name).__file__
        assert found is not None
        assert Path(found).resolve() == ROOT / name / "__init__.py"
