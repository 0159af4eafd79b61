"""Rendering of a document as one HTML file that needs no other file and no network."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence

from markdown_it import MarkdownIt

from common.document.blocks import Block
from common.document.markdown import to_markdown
from common.text import one_line


def to_html(blocks: Sequence[Block], title: str, pictures: Mapping[str, bytes]) -> str:
    """Return the document as HTML, with the PNG files in `pictures`, by name, embedded."""
    reader = MarkdownIt("commonmark", {"html": False}).enable("table")
    body = str(reader.render(to_markdown(blocks)))
    for name, png in pictures.items():
        data = base64.b64encode(png).decode()
        # The document's text cannot look like this: its quotation marks are escaped.
        body = body.replace(f'src="{name}"', f'src="data:image/png;base64,{data}"')
    return _PAGE.format(title=html.escape(one_line(title)), style=_STYLE, body=body)


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
