"""A document as a sequence of blocks.

Texts of blocks are plain: rows, model output and names are hostile, and only the renderers know
what a format would take for markup (`common.document.markdown`, `common.document.html_page`,
`cli.render`). `evaluation/report/files.py` collects the blocks of a run's report,
`worker/incremental/report/report.py` those of what clients learned from their users.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Heading:
    """A title; level 1 is the document's."""

    text: str
    level: int = 2


@dataclass(frozen=True)
class Paragraph:
    """A few sentences."""

    text: str


@dataclass(frozen=True)
class BulletList:
    """A line of text with bullet points below it."""

    text: str
    points: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """A table whose first column names the rows, and whose other columns hold figures."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Picture:
    """A PNG file beside the document, with its alternative text."""

    name: str
    text: str


Block = Heading | Paragraph | BulletList | Table | Picture
