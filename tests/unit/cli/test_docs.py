"""Commands, make targets and links in the documents exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from cli.main import COMMANDS, fccl
from tests.support.paths import ROOT

DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def shell_lines() -> list[tuple[str, str]]:
    found = []
    for document in DOCUMENTS:
        for block in re.findall(r"```sh\n(.*?)```", document.read_text(), re.DOTALL):
            lines = (line.partition(" #")[0].strip() for line in block.splitlines())
            found += [(document.name, line) for line in lines if line]
    return found


FCCL = [(name, line) for name, line in shell_lines() if line.split()[0] == "fccl"]
MAKE = [(name, line) for name, line in shell_lines() if line.split()[0] == "make"]


@pytest.mark.parametrize(("document", "line"), FCCL)
def test_a_documented_command_line_parses(document: str, line: str) -> None:
    _, name, *arguments = shlex.split(line)
    command = fccl.get_command(click.Context(fccl), name)
    assert command is not None
    command.make_context(name, arguments)


@pytest.mark.parametrize(("document", "line"), MAKE)
def test_a_documented_make_target_exists(document: str, line: str) -> None:
    target = line.split()[1]
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_every_command_is_documented_and_the_first_one_comes_before_line_40() -> None:
    readme = (ROOT / "README.md").read_text()
    assert all(re.search(rf"\b(fccl|make) {name}\b", readme) for name in COMMANDS)
    assert readme.index("make demo") < sum(len(line) + 1 for line in readme.splitlines()[:40])


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_and_named_files_exist(document: Path) -> None:
    text = document.read_text()
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", text)
    files = re.findall(r"`((?:[a-z]+/)+[a-z_]+\.py)[:`]", text) if document.name != "log.md" else []
    missing = [link for link in links if not link.startswith("http")]
    missing = [link for link in missing if not (document.parent / link).exists()]
    assert missing + [file for file in files if not (ROOT / file).exists()] == []
