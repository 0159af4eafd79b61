"""The plug-ins of docs/extending.md, installed as packages of their own."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from tests.support.paths import ROOT

EXTENDING = ROOT / "docs" / "extending.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", EXTENDING.read_text(), re.DOTALL)


def install_documented_plugins(place: Path) -> None:
    """Install each documented module with its entry point into a folder for `sys.path`."""
    sources = {block.split("\n")[0].removeprefix("# "): block for block in blocks("python")}
    for name, source in sources.items():
        (place / name).write_text(source)
    projects = [table for text in blocks("toml") if "project" in (table := tomllib.loads(text))]
    for number, table in enumerate(projects):
        info = place / f"plugin{number}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: plugin{number}\nVersion: 1.0\n"
        )
        lines = []
        for group, names in table["project"]["entry-points"].items():
            lines += [f"[{group}]", *(f"{name} = {value}" for name, value in names.items())]
        (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
