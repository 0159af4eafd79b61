"""The distribution has the repository's packages and declares what they import."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from setuptools import find_packages

from tests.support.paths import ROOT, own_packages


def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def imported_by(path: Path) -> set[str]:
    """Return the top-level modules that a source file imports, also within functions."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return {name.partition(".")[0] for name in names}


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def requirements(name: str) -> list[str]:
    try:
        return metadata.requires(name) or []
    except metadata.PackageNotFoundError:  # an older environment than the constraints describe
        return []


def test_setuptools_finds_exactly_the_repositorys_own_packages() -> None:
    include = pyproject()["tool"]["setuptools"]["packages"]["find"]["include"]
    nested = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for name in own_packages()
        for path in (ROOT / name).glob("**/__init__.py")
    }
    assert set(find_packages(str(ROOT), include=include)) == nested


def test_every_folder_with_modules_is_a_package() -> None:
    folders = {path.parent for name in own_packages() for path in (ROOT / name).glob("**/*.py")}
    assert [folder for folder in folders if not (folder / "__init__.py").exists()] == []


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


def test_every_imported_library_is_a_declared_dependency() -> None:
    project = pyproject()["project"]
    extras = project["optional-dependencies"]
    optional = [each for name in extras.keys() - {"dev"} for each in extras[name]]
    declared = {
        normalised(re.split(r"[<>=!~ ;\[]", each)[0])
        for each in [*project["dependencies"], *optional]
    }
    imported = {
        module
        for name in own_packages()
        for path in (ROOT / name).glob("**/*.py")
        for module in imported_by(path)
    }
    libraries = imported - own_packages() - set(sys.stdlib_module_names)
    distributions = metadata.packages_distributions()
    undeclared = {
        module
        for module in libraries
        if not {normalised(each) for each in distributions.get(module, [])} & declared
    }
    assert undeclared == set()


def test_constraints_pin_every_package_that_a_development_install_needs() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {normalised(line.partition("==")[0]) for line in lines if "==" in line[:50]}
    missing, seen, waiting = set[str](), set[str](), [("fccl", frozenset({"dev"}))]
    while waiting:
        name, extras = waiting.pop()
        for line in requirements(name):
            wanted = Requirement(line)
            marker, package = wanted.marker, normalised(wanted.name)
            needed = not marker or any(marker.evaluate({"extra": e}) for e in ("", *extras))
            key = f"{package}[{','.join(sorted(wanted.extras))}]"
            if needed and key not in seen and not package.startswith(("nvidia-", "triton")):
                seen.add(key)
                waiting.append((wanted.name, frozenset(wanted.extras)))
                missing |= {package} - pinned - {"fccl"}
    assert missing == set()
