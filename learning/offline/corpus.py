"""The English text that every Python machine holds, gathered without importing anything.

Docstrings and comments of the standard library and of installed packages, the manual's topics in
`pydoc_data`, and the read-me texts of installed distributions. Sources are parsed, never run: a
corpus must not depend on what an import does.

In the data path: the offline base models are trained on this text, so that fine-tuning means
something on a machine that reaches no hub. Next: `learning.offline.training_texts`.
"""

from __future__ import annotations

import ast
import re
import sysconfig
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.parser import HeaderParser
from pathlib import Path

from learning.offline.cleaning import paragraphs

STDLIB = "python"
"""The standard library in a list of packages."""

PACKAGES = (
    STDLIB, "numpy", "sklearn", "matplotlib", "peft", "pydantic", "click", "hypothesis", "joblib",
    "redis", "networkx", "huggingface_hub", "accelerate", "fsspec",
    "torch/nn", "torch/optim", "torch/utils", "torch/distributed",
)  # fmt: skip
"""Folders under site-packages that hold prose, most of them dependencies of fccl itself."""

_SKIPPED = frozenset({"site-packages", "test", "tests", "_vendor", "lib2to3"})
_MAX_FILE = 1 << 20  # bytes; larger sources are generated tables

_COMMENTS = re.compile(r"(?:^[ \t]*#.*\n){2,}", re.MULTILINE)

_Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Passage:
    """One cleaned paragraph, and the dotted or distribution name that it is about."""

    subject: str
    text: str


def docstrings(source: str) -> Iterator[tuple[str, str]]:
    """Yield the (name, docstring) pairs of a Python source; none if it does not parse."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in other people's strings
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return
    pending: list[ast.stmt | ast.Module] = [tree]
    while pending:  # statements only: ast.walk would also visit every expression, four times slower
        node = pending.pop()
        pending += getattr(node, "body", ())
        if isinstance(node, _Documented) and (text := ast.get_docstring(node)):
            yield getattr(node, "name", "module"), text


def comments(source: str) -> Iterator[tuple[str, str]]:
    """Yield the blocks of comment lines of a Python source, as (subject, text) pairs."""
    for block in _COMMENTS.findall(source):
        yield "this", "\n".join(line.strip().lstrip("#").strip() for line in block.splitlines())


def _sources(root: Path) -> Iterator[str]:
    """Yield the Python sources under a folder in a fixed order, without tests."""
    for path in sorted(root.rglob("*.py")):
        if _SKIPPED.isdisjoint(path.relative_to(root).parts) and path.stat().st_size <= _MAX_FILE:
            yield path.read_text(encoding="utf-8", errors="ignore")


def _topics(stdlib: Path) -> Iterator[tuple[str, str]]:
    """Yield the language manual that `help()` prints: a module that assigns one dict of texts."""
    path = stdlib / "pydoc_data" / "topics.py"
    if not path.is_file():
        return
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if isinstance(key, ast.Constant) and isinstance(value, ast.Constant):
                    yield str(key.value), str(value.value)


def _descriptions(site: Path) -> Iterator[tuple[str, str]]:
    """Yield the (name, long description) of every installed distribution."""
    for path in sorted(site.glob("*.dist-info/METADATA")):
        message = HeaderParser().parsestr(path.read_text(encoding="utf-8", errors="ignore"))
        yield str(message["Name"]), str(message.get_payload())


def _sources_text(root: Path) -> Iterator[tuple[str, str]]:
    for source in _sources(root):
        yield from docstrings(source)
        yield from comments(source)


def passages(packages: tuple[str, ...], on_progress: Callable[[float], None]) -> list[Passage]:
    """Return every distinct English paragraph found on this machine, in a fixed order.

    The list depends on the installed versions, and so does the model trained on it; therefore a
    worker without the model fetches it from the coordinator instead of training its own.

    Args:
        packages: Folders under site-packages whose docstrings and comments are read, and `STDLIB`;
            absent ones are skipped. The manual and the read-me texts are always read.
        on_progress: Called with the share of the work done, from 0 to 1.
    """
    stdlib, site = (Path(sysconfig.get_paths()[key]) for key in ("stdlib", "purelib"))
    roots = [stdlib if package == STDLIB else site / package for package in packages]
    origins = [_topics(stdlib), _descriptions(site), *map(_sources_text, roots)]
    subjects: dict[str, str] = {}  # paragraph to subject; the first subject wins
    for i, origin in enumerate(origins):
        for name, text in origin:
            for paragraph in paragraphs(text):
                subjects.setdefault(paragraph, name)
        on_progress((i + 1) / len(origins))
    return [Passage(subject, text) for text, subject in subjects.items()]
