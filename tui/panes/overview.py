"""Overview pane: is the run healthy, does it learn, is a client slow?"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.widgets import Static

from common.byte_sizes import format_bytes
from common.privacy import NOT_COVERED
from common.store.view import ENDED_STATUSES, FederationView, RunInfo
from tui.banner import banner
from tui.data import figures
from tui.data.figures import PhaseProgress
from tui.data.health import HealthCheck, check_balance, check_health, check_learning
from tui.data.reader import Snapshot
from tui.data.update_counts import UpdateCounts
from tui.formatting import format_duration, format_event, plural
from tui.widgets.badge import badge
from tui.widgets.bar import progress_bar
from tui.widgets.loss_curves import LossCurves

MARKS = {True: ("✓ yes", "green"), False: ("✗ no ", "red"), None: ("?    ", "yellow")}
MAX_EVENTS = 100  # the log pane has all
MAX_ESTIMATE_S = 30 * 24 * 3600.0  # the last few versions tell no more
STYLES = {"info": "", "warning": "yellow", "error": "red"}

SlowestClients = Sequence[tuple[str, float]]


class OverviewPane(Vertical):
    """Answers above; loss curves, workers and slow clients in the middle; events below."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._counts = UpdateCounts()

    def compose(self) -> ComposeResult:
        yield Static(id="run")
        with Horizontal(id="middle"):
            yield LossCurves(id="curves")
            yield Static(id="people")
        with VerticalScroll(id="happened"):
            yield Static(id="events")

    def show(self, snapshot: Snapshot) -> None:
        view = snapshot.view
        if view is None:
            return
        width = self.size.width
        # A problem in the banner means not healthy, whatever the last view said.
        level, problem = banner(snapshot, view.info.name, time.monotonic())
        check = check_health(view) if level in ("", "note") else HealthCheck(False, problem)
        slowest = self._counts.slowest_clients(view)
        health = _recorded_state(view) if snapshot.state == "replay" else _check_text(check)
        self.query_one("#run", Static).update(_summary(view, health, slowest, width))
        self.query_one(LossCurves).show(view.versions, view.info.phases)
        compact = self.screen.has_class("-narrow") or self.screen.has_class("-low")
        participants = _participants(view, slowest, "  " if compact else "\n  ")
        self.query_one("#people", Static).update(participants)
        # The newest event is on top, visible at any height.
        newest = reversed(view.events[-MAX_EVENTS:])
        lines = [Text(format_event(event), STYLES[event.level]) for event in newest]
        self.query_one("#events", Static).update(Text("\n").join(lines))


def _summary(view: FederationView, health: Text, slowest: SlowestClients, width: int) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True, min_width=8)  # never shortened
    grid.add_column(no_wrap=True, overflow="ellipsis")
    for name, text in _summary_lines(view, health, slowest, max(10, min(40, width // 4))):
        grid.add_row(Text(name, "bold"), text)
    return grid


def _summary_lines(
    view: FederationView, health: Text, slowest: SlowestClients, width: int
) -> Iterator[tuple[str, Text]]:
    info, versions = view.info, view.versions
    named = Text.assemble((info.name, "bold"))
    yield "run", Text("  ").join([badge(info.status), named, Text(info.detail)])
    yield "healthy", health
    yield "learning", _check_text(check_learning(versions))
    yield "balanced", _check_text(check_balance(versions, slowest))
    yield "phase", _phases(info, figures.phase_progress(info))
    progress = f"{progress_bar(info.version, info.total_versions, width)} {info.version}"
    yield "version", Text(f"{progress} of {info.total_versions}")
    buffered = f"{progress_bar(info.buffered, info.buffer_size, width)} {info.buffered}"
    counts = f"{plural(info.open_tasks, 'task')} open, {info.accepted} accepted"
    rest = f", {counts}, {info.rejected} rejected"
    yield "buffer", Text(f"{buffered} of {info.buffer_size}{rest}")
    yield "pace", Text(_pace(view))
    if info.privacy is not None:
        yield "privacy", Text(info.privacy.text())
        yield "", Text(NOT_COVERED)


def _check_text(check: HealthCheck) -> Text:
    mark, style = MARKS[check.good]
    return Text.assemble((mark, style), "  ", check.text)


def _recorded_state(view: FederationView) -> Text:
    """Return the position of a recorded run, which is neither healthy nor not."""
    info = view.info
    phase = f"{info.phases[info.phase]}, phase {info.phase + 1} of {len(info.phases)}"
    quarantined = sum(client.quarantined for client in view.clients)
    parts = [phase, f"version {info.version} of {info.total_versions}"]
    parts += [f"{quarantined} of {len(view.clients)} clients quarantined"] if quarantined else []
    return Text.assemble(("⏵ recorded", "cyan"), "  ", ", ".join(parts))


def _phases(info: RunInfo, progress: PhaseProgress | None) -> Text:
    """Return the phases in a row: done, in progress with its share, to come."""
    text, names, now = Text(), info.phases, info.phase
    for at, name in enumerate(names):
        if at < now or info.status == "finished":
            text.append(f"✓ {name}   ", "green")
        elif at == now:
            share = f" {progress.share:.0%}" if progress is not None else ""
            text.append(f"▶ {name}{share}   ", "bold")
        else:
            text.append(f"○ {name}   ", "dim")
    text.append(f"{now + 1} of {len(names)}")
    return text


def _pace(view: FederationView) -> str:
    info, versions = view.info, view.versions
    pace = figures.measure_pace(versions, info.updated_at)
    left = figures.estimate_seconds_left(info.version, info.total_versions, pace)
    parts = [
        f"↑ {format_bytes(figures.uploaded_bytes(versions))}",
        f"↓ ≈{format_bytes(figures.downloaded_bytes(versions))}",
    ]
    over = info.status in ENDED_STATUSES
    if pace is not None and not over:
        parts.insert(0, f"{pace.updates:.1f} updates/min")
        parts.insert(1, f"{figures.total_tokens_per_s(view.workers):,.0f} tokens/s")
    if left is not None and not over:
        parts.insert(
            2,
            f"{format_duration(left)} left" if left < MAX_ESTIMATE_S else "more than a month left",
        )
    return ", ".join(parts)


def _participants(view: FederationView, slowest: SlowestClients, separator: str) -> Text:
    """Return the workers by state and the slowest clients, each after a separator."""
    text = Text.assemble((plural(len(view.workers), "worker"), "bold"))
    for state, count in sorted(figures.count_states(view.workers).items()):
        text.append(separator).append_text(badge(state)).append(f" {count}")
    text.append("\nslowest clients" if slowest else "", "bold")
    for client, seconds in slowest:
        text.append(f"{separator}{client} {seconds:.1f} s")
    return text
