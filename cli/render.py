"""Rendering of a document: styled in a terminal, as Markdown into a file or a pipe."""

from __future__ import annotations

from collections.abc import Sequence

import click
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from common.document.blocks import Block, BulletList, Heading, Paragraph, Picture, Table
from common.document.markdown import to_markdown
from common.text import one_line


def render(blocks: Sequence[Block], console: Console) -> None:
    """Print the blocks, without pictures."""
    if not console.is_terminal:
        click.echo(to_markdown([b for b in blocks if not isinstance(b, Picture)]), nl=False)
        return
    for block in blocks:
        match block:
            case Heading():
                style = "bold" if block.level < 3 else "italic"
                console.print(Text(f"\n{one_line(block.text)}", style=style))
            case Paragraph():
                console.print(Text(one_line(block.text), style="dim"))
            case BulletList():
                console.print(Text(f"\n{one_line(block.text)}"))
                for point in block.points:
                    console.print(Text(f"  • {one_line(point)}", style="dim"))
            case Table():
                console.print(_table(block), Text())


def _table(block: Table) -> RichTable:
    table = RichTable(header_style="bold", box=None, pad_edge=False)
    for number, title in enumerate(block.header):
        table.add_column(Text(one_line(title)), justify="right" if number else "left")
    for row in block.rows:
        table.add_row(*(Text(one_line(text)) for text in row))
    return table
