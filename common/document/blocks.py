"""A document as blocks, and the forms in which it is read: Markdown, and one HTML file.

Texts of blocks are plain: rows, model output and names are hostile, and only the renderers here
know what a form would take for markup. `evaluation/report/tables.py` makes the blocks of a run's
report, `worker/incremental/report/report.py` those of what clients learned from their users.
"""

from __future__ import annotations

import base64
import html
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt

from common.errors import RunError
from common.files import write_durable
from common.protocol.fields import one_line

_MARKUP = re.compile(r"[\\`*\[\]<>#|&~]|(?<![^\W_])_|_(?![^\W_])")


@dataclass(frozen=True)
class Heading:
    """A title; `level` 1 is the document's."""

    text: str
    level: int = 2


@dataclass(frozen=True)
class Paragraph:
    """A few sentences."""

    text: str


@dataclass(frozen=True)
class BulletList:
    """A line with points under it."""

    text: str
    points: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """Cells; the first column names the rows, the others hold figures."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Picture:
    """A PNG beside the document, by its name."""

    name: str
    text: str


Block = Heading | Paragraph | BulletList | Table | Picture


def to_markdown(blocks: Sequence[Block]) -> str:
    """The document as Markdown (CommonMark with tables)."""
    return "\n\n".join(_block(block) for block in blocks) + "\n"


def to_html(blocks: Sequence[Block], title: str, pictures: Mapping[str, bytes]) -> str:
    """The document as one file that needs nothing else.

    Args:
        blocks: What it says.
        title: Of the page.
        pictures: PNG by name.
    """
    reader = MarkdownIt("commonmark", {"html": False}).enable("table")
    body = str(reader.render(to_markdown(blocks)))
    for name, png in pictures.items():
        data = base64.b64encode(png).decode()
        # Text of the document cannot look like this: its quotation marks are escaped.
        body = body.replace(f'src="{name}"', f'src="data:image/png;base64,{data}"')
    return _PAGE.format(title=html.escape(one_line(title)), style=_STYLE, body=body)


def escape(text: str) -> str:
    """Text in one line that Markdown takes for nothing but text."""
    return _MARKUP.sub(lambda found: f"\\{found[0]}", " ".join(one_line(text).split()))


def write_files(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Write a document's files, by name; the last one is there when all are.

    Raises:
        RunError: The folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            write_durable(folder / name, content)
    except OSError as error:
        raise RunError(
            f"{folder} cannot be written: {error.strerror}", "choose another place with --out"
        ) from None


def replace_non_finite(value: Any) -> Any:
    """Plain values with null for numbers that JSON has not."""
    if isinstance(value, Mapping):
        return {str(key): replace_non_finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [replace_non_finite(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _block(block: Block) -> str:
    match block:
        case Heading():
            return f"{'#' * block.level} {escape(block.text)}"
        case Paragraph():
            return escape(block.text)
        case BulletList():
            points = "\n".join(f"- {escape(point)}" for point in block.points)
            return f"**{escape(block.text) or '(nothing)'}**\n\n{points}"
        case Table():
            marks = ["---", *["---:"] * (len(block.header) - 1)]
            cells = [[escape(cell) for cell in row] for row in (block.header, *block.rows)]
            return "\n".join(f"| {' | '.join(row)} |" for row in (cells[0], marks, *cells[1:]))
        case Picture():
            return f"![{escape(block.text)}]({block.name})"


_PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; \
style-src 'unsafe-inline'">
<title>{title}</title>
<style>
{style}
</style>
</head>
<body>
{body}
</body>
</html>
"""

_STYLE = """\
:root { color-scheme: light dark; --ink: #1c2330; --soft: #5d6778; --line: #dfe4ec;
  --page: #ffffff; --band: #f5f7fa; --accent: #2f6fb0; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e9f1; --soft: #9aa6b8; --line: #333c4a;
  --page: #151a22; --band: #1c232d; --accent: #74aee8; } }
body { margin: 0 auto; padding: 2.5rem 1.25rem 5rem; max-width: 58rem; background: var(--page);
  color: var(--ink); font: 16px/1.55 system-ui, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 1rem; }
h2 { font-size: 1.2rem; margin: 2.6rem 0 .6rem; padding-top: 1.1rem;
  border-top: 1px solid var(--line); color: var(--accent); }
h3 { font-size: 1rem; margin: 1.6rem 0 .4rem; }
p { margin: .6rem 0; overflow-wrap: anywhere; }
table { display: block; width: fit-content; max-width: 100%; overflow-x: auto; margin: 1rem 0;
  border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .8rem; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { color: var(--soft); font-weight: 600; border-bottom-width: 2px; }
tbody tr:nth-child(even) { background: var(--band); }
td:first-child, th:first-child { font-weight: 500; }
img { display: block; max-width: 100%; margin: 1.2rem auto; border-radius: 6px;
  background: #ffffff; }
ul { margin: .3rem 0 1.1rem; padding-left: 1.2rem; color: var(--soft); }
li { margin: .15rem 0; overflow-wrap: anywhere; }
"""
