"""Rendering of a document as Markdown (CommonMark with tables)."""

from __future__ import annotations

import re
from collections.abc import Sequence

from common.document.blocks import Block, BulletList, Heading, Paragraph, Picture, Table
from common.text import one_line

_MARKUP = re.compile(r"[\\`*\[\]<>#|&~]|(?<![^\W_])_|_(?![^\W_])")


def to_markdown(blocks: Sequence[Block]) -> str:
    return "\n\n".join(_block(block) for block in blocks) + "\n"


def escape(text: str) -> str:
    """Return text in one line, escaped so that Markdown finds no markup in it."""
    return _MARKUP.sub(lambda markup: f"\\{markup[0]}", " ".join(one_line(text).split()))


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
