"""One hostile text through everything that shows text of other machines, rows and files."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt
from prometheus_client import CollectorRegistry, Counter, generate_latest
from rich.console import Console

from cli.console import Output
from cli.jsonlog import JsonLog
from cli.render import render
from cli.sites import audit, invite
from cli.sites.comparison import AuditRow
from common.document.blocks import BulletList, Heading, Paragraph, Table
from common.document.html_page import to_html
from common.document.markdown import to_markdown
from common.protocol.evaluations import EvaluatorFigures
from common.store.view import QueueRow
from coordinator.sites.registry import InvitedSite, SiteRegistry, Token
from tests.support.tui import builders
from tui.status_panel import status_panel

HOSTILE = "[/x][red]:boom:<b>|*a*\x1b[31m\x1b]0;t\x07\r\nb\u202e![p](http://x)"
SHOWN = "[/x][red]:boom:<b>|*a*"


@contextmanager
def captured(console: Console) -> Iterator[list[str]]:
    found: list[str] = []
    with console.capture() as capture:
        yield found
    found.append(capture.get())


def check_harmless(text: str) -> None:
    assert SHOWN in text
    assert "\x1b[31m" not in text and "\x1b]" not in text
    assert not {"\x07", "\r", "\u202e"} & set(text)


def test_the_status_shows_it_as_text() -> None:
    view = builders.snapshot(
        detail=HOSTILE,
        workers=[builders.heartbeat("w", device=HOSTILE)],
        queues=[QueueRow.model_construct(queue=f"a.b.{HOSTILE}", messages=1, consumers=0)],
        events=[builders.event(HOSTILE)],
        clients=[builders.client("c").model_copy(update={"client_id": HOSTILE})],
    ).view
    assert view is not None
    figures = {"version": 1, "evaluator": "e", "at": 1.0, "figures": {HOSTILE: 1.0}, "seconds": 1.0}
    evaluators = (EvaluatorFigures.model_validate(figures),)
    console = Console(width=400, force_terminal=True, color_system=None)
    with captured(console) as found:
        console.print(status_panel(replace(view, evaluators=evaluators), 2.0))
    check_harmless(found[0])
    assert found[0].count(SHOWN) == 6


def test_the_lists_of_sites_and_of_answers_show_it_as_text(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sites = SiteRegistry(tmp_path / "sites.db")
    site = InvitedSite("ward7", "joined", 1, 10, "b", "s", HOSTILE, 1.0)
    sites.invite(site, Token("t", "ward7", "h", 1.0, ""), again=False)
    invite.print_sites(sites)
    check_harmless(capsys.readouterr().out)
    row: dict[str, Any] = dict.fromkeys(AuditRow.__dataclass_fields__, "")
    row |= {"attempt": 1, "version": 1, "bytes": 1, "norm": None, "agrees": True}
    audit._print([AuditRow(**{**row, "client": HOSTILE})], "r", "s")
    check_harmless(capsys.readouterr().out)


@pytest.mark.parametrize("live", [False, True])
def test_lines_and_progress_show_it_as_text(live: bool, capsys: pytest.CaptureFixture[str]) -> None:
    output = Output(plain=not live)
    output.live = live
    output.console = Console(width=400, force_terminal=live, color_system=None)
    output.print(HOSTILE)
    output.progress(HOSTILE, 0.5)
    output.end_progress()
    printed = capsys.readouterr().out
    assert printed.count(SHOWN) >= 2 and "\x1b[31m" not in printed


def test_a_report_shows_it_as_text() -> None:
    blocks = [
        Heading(HOSTILE),
        Paragraph(HOSTILE),
        BulletList(HOSTILE, (HOSTILE,)),
        Table((HOSTILE,), ((HOSTILE,),)),
    ]
    plain = MarkdownIt("commonmark").enable("table").render(to_markdown(blocks))
    for page in (plain, to_html(blocks, HOSTILE, {})):
        assert not any(mark in page for mark in ("<b>", "<em>a", '<img src="http', "\x1b", "\x07"))
        assert "<a " not in page
    console = Console(width=400, force_terminal=True, color_system=None)
    with captured(console) as found:
        render(blocks, console)
    check_harmless(found[0])


def test_a_log_and_metrics_keep_it_in_one_line() -> None:
    stream = io.StringIO()
    JsonLog(stream, "worker").write("info", "text", HOSTILE)
    (line,) = stream.getvalue().splitlines()
    assert json.loads(line)["message"].startswith("[/x]")
    registry = CollectorRegistry()
    Counter("fccl_x", "X", ["site"], registry=registry).labels(HOSTILE).inc()
    lines = generate_latest(registry).decode().rstrip("\n").split("\n")
    assert all(line.startswith(("# ", "fccl_x_")) for line in lines)
