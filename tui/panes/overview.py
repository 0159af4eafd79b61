"""The first pane: is it healthy, is it learning, who is slow? One glance must do."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.widgets import Static

from common.store.view import FederationView, RunInfo
from tui.banner import banner
from tui.data import figures
from tui.data.figures import HealthCheck, PhaseProgress, healthy
from tui.data.reader import Snapshot
from tui.data.update_counts import UpdateCounts
from tui.event_line import format_event
from tui.formatting import format_bytes, format_duration, plural
from tui.widgets.badge import badge
from tui.widgets.bar import bar
from tui.widgets.loss_curves import LossCurves

SIGNS = {True: ("✓ yes", "green"), False: ("✗ no ", "red"), None: ("?    ", "yellow")}
EVENTS = 100  # all that are known are in the log
LONG_S = 30 * 24 * 3600.0  # beyond, a guess from the last few versions is none
Slowest = Sequence[tuple[str, float]]

STYLES = {"info": "", "warning": "yellow", "error": "red"}


class OverviewPane(Vertical):
    """Answers above, curves and people in the middle, what happened below."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._tally = UpdateCounts()

    def compose(self) -> ComposeResult:
        """The four parts."""
        yield Static(id="run")
        with Horizontal(id="middle"):
            yield LossCurves(id="curves")
            yield Static(id="people")
        with VerticalScroll(id="happened"):
            yield Static(id="events")

    def show(self, snapshot: Snapshot) -> None:
        """Show a snapshot on the screen."""
        view = snapshot.view
        if view is None:
            return
        width = self.size.width
        # What the banner warns of is no health, whatever the last view said.
        level, trouble = banner(snapshot, view.info.name, time.monotonic())
        well = healthy(view) if level in ("", "note") else HealthCheck(False, trouble)
        slowest = self._tally.slowest(view)
        health = recorded(view) if snapshot.state == "replay" else answer(well)
        self.query_one("#run", Static).update(head(view, health, slowest, width))
        self.query_one(LossCurves).show(view.versions, view.info.phases)
        compact = self.screen.has_class("-narrow") or self.screen.has_class("-low")
        self.query_one("#people", Static).update(people(view, slowest, "  " if compact else "\n  "))
        # The newest on top: it is seen without scrolling, whatever the height.
        newest = reversed(view.events[-EVENTS:])
        lines = [Text(format_event(event), STYLES[event.level]) for event in newest]
        self.query_one("#events", Static).update(Text("\n").join(lines))


def head(view: FederationView, health: Text, slowest: Slowest, width: int) -> Table:
    """Name and state, the three answers, how far it is, and how fast it goes."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True, min_width=8)  # whatever the other one wants
    grid.add_column(no_wrap=True, overflow="ellipsis")
    for name, text in _lines(view, health, slowest, max(10, min(40, width // 4))):
        grid.add_row(Text(name, "bold"), text)
    return grid


def _lines(
    view: FederationView, health: Text, slowest: Slowest, width: int
) -> Iterator[tuple[str, Text]]:
    info, versions = view.info, view.versions
    named = Text.assemble((info.name, "bold"))
    yield "run", Text("  ").join([badge(info.status), named, Text(info.detail)])
    yield "healthy", health
    yield "learning", answer(figures.learning(versions))
    yield "in step", answer(figures.slow(versions, slowest))
    yield "phase", phases(info, figures.phase_progress(info))
    progress = f"{bar(info.version, info.total_versions, width)} {info.version}"
    yield "version", Text(f"{progress} of {info.total_versions}")
    buffered = f"{bar(info.buffered, info.buffer_size, width)} {info.buffered}"
    counts = f"{plural(info.open_tasks, 'task')} open, {info.accepted} accepted"
    rest = f", {counts}, {info.rejected} rejected"
    yield "buffer", Text(f"{buffered} of {info.buffer_size}{rest}")
    yield "pace", Text(_pace(view))


def answer(given: HealthCheck) -> Text:
    """A sign, a word, and the reason."""
    sign, style = SIGNS[given.good]
    return Text.assemble((sign, style), "  ", given.text)


def recorded(view: FederationView) -> Text:
    """In the place of a health: what is over cannot be well or ill, but it was somewhere."""
    info = view.info
    phase = f"{info.phases[info.phase]}, phase {info.phase + 1} of {len(info.phases)}"
    out = sum(client.quarantined for client in view.clients)
    parts = [phase, f"version {info.version} of {info.total_versions}"]
    parts += [f"{out} of {len(view.clients)} clients quarantined"] if out else []
    return Text.assemble(("⏵ recorded", "cyan"), "  ", ", ".join(parts))


def phases(info: RunInfo, progress: PhaseProgress | None) -> Text:
    """All phases in a row: done, in progress and how far, to come."""
    text, names, now = Text(), info.phases, info.phase
    for at, name in enumerate(names):
        if at < now or info.status == "finished":
            text.append(f"✓ {name}   ", "green")
        elif at == now:
            far = f" {progress.share:.0%}" if progress is not None else ""
            text.append(f"▶ {name}{far}   ", "bold")
        else:
            text.append(f"○ {name}   ", "dim")
    text.append(f"{now + 1} of {len(names)}")
    return text


def _pace(view: FederationView) -> str:
    info, versions = view.info, view.versions
    speed = figures.pace(versions, info.updated_at)
    left = figures.seconds_left(info.version, info.total_versions, speed)
    parts = [
        f"↑ {format_bytes(figures.bytes_up(versions))}",
        f"↓ ≈{format_bytes(figures.bytes_down(versions))}",
    ]
    over = info.status in ("finished", "stopped", "failed")
    if speed is not None and not over:
        parts.insert(0, f"{speed.updates:.1f} updates/min")
        parts.insert(1, f"{figures.tokens_per_s(view.workers):,.0f} tokens/s")
    if left is not None and not over:
        parts.insert(
            2, f"{format_duration(left)} left" if left < LONG_S else "more than a month left"
        )
    return ", ".join(parts)


def people(view: FederationView, slowest: Slowest, between: str) -> Text:
    """Workers by state, and the slowest clients.

    Args:
        view: What to show.
        slowest: Clients and their seconds.
        between: Stands before each entry: a line break, or not.
    """
    text = Text.assemble((plural(len(view.workers), "worker"), "bold"))
    for state, count in sorted(figures.states(view.workers).items()):
        text.append(between).append_text(badge(state)).append(f" {count}")
    text.append("\nslowest clients" if slowest else "", "bold")
    for client, seconds in slowest:
        text.append(f"{between}{client} {seconds:.1f} s")
    return text
