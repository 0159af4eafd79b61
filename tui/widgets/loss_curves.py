"""Losses by version: a plot where there is room, otherwise a sparkline per curve."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from rich.text import Text
from textual import events
from textual.app import ComposeResult
from textual.containers import Container
from textual.widgets import Static
from textual_plot import HiResMode, LegendLocation, PlotWidget

from common.protocol.versions import VersionSummary
from tui.data.figures import phase_starts
from tui.widgets.sparkline import downsample, sparkline

MIN_WIDTH, MIN_HEIGHT = 60, 12  # of a readable plot
POINTS = 400  # per curve; a terminal has no more columns

Curve = Sequence[tuple[int, float]]


def loss_curves(versions: Sequence[VersionSummary]) -> dict[str, Curve]:
    """Return the training loss and the holdout loss before training, each by version."""
    return {
        "train": [(v.version, v.train_loss) for v in versions if v.train_loss is not None],
        "holdout before": [
            (v.version, v.holdout_before) for v in versions if v.holdout_before is not None
        ],
    }


class _Plot(PlotWidget, can_focus=False):
    """Plot without focus, so that keys and the wheel stay with the pane."""


class LossCurves(Container):
    """Curves that are drawn again only for a new version or another size."""

    def __init__(self, phases: Sequence[str] = (), **arguments: Any) -> None:
        super().__init__(**arguments)
        self._versions: Sequence[VersionSummary] = ()
        self._phases = phases

    def compose(self) -> ComposeResult:
        yield _Plot(allow_pan_and_zoom=False)
        yield Static(id="sparks")

    def on_mount(self) -> None:
        self.query_one(_Plot).margin_left = 7
        self._choose()

    def show(self, versions: Sequence[VersionSummary], phases: Sequence[str]) -> None:
        """Show the losses of these versions, with the name of each phase where it begins."""
        last = self._versions[-1] if self._versions else None
        if versions and versions[-1] != last:
            self._versions, self._phases = versions, phases
            self._choose()
            self._draw()

    def on_resize(self, _: events.Resize) -> None:
        self._choose()
        self._draw()

    @property
    def plotted(self) -> bool:
        """True if there is something to plot, and room for it."""
        roomy = self.size.width >= MIN_WIDTH and self.size.height >= MIN_HEIGHT
        # A single point has no scale.
        return roomy and any(len(curve) > 1 for curve in loss_curves(self._versions[-3:]).values())

    def _choose(self) -> None:
        self.query_one(_Plot).display = self.plotted
        self.query_one("#sparks").display = not self.plotted

    def _draw(self) -> None:
        if self.plotted:
            self._plot(loss_curves(self._versions))
        else:
            # Losses of two objectives have no common scale: show only this phase.
            phase = self._versions[-1].phase if self._versions else 0
            curves = loss_curves([each for each in self._versions if each.phase == phase])
            lines = _sparklines(curves, max(10, self.size.width - 34))
            self.query_one("#sparks", Static).update(lines)

    def _plot(self, curves: dict[str, Curve]) -> None:
        plot = self.query_one(_Plot)
        plot.clear()
        # Two textures besides two colours, so that the curves differ without colour.
        styles = {
            "train": ("cyan", HiResMode.BRAILLE),
            "holdout before": ("yellow", HiResMode.QUADRANT),
        }
        phases = phase_starts(self._versions)
        starts = [0, *(version for version, _ in phases)]
        ends = [*starts[1:], sys.maxsize]
        for name, curve in curves.items():
            style, mode = styles[name]
            label: str | None = name
            # Losses of two objectives are different measures: do not connect them.
            for start, end in zip(starts, ends, strict=True):
                part = [point for point in curve if start <= point[0] < end]
                points = part[:: -max(1, len(part) // POINTS)]  # includes the newest
                if points:
                    x, y = zip(*points, strict=True)
                    plot.plot(x, y, line_style=style, hires_mode=mode, label=label)
                    label = None
        for version, phase in phases:
            label = f"{self._phases[phase]} begins" if phase < len(self._phases) else None
            plot.add_v_line(version, line_style="magenta", label=label)
        plot.set_xlabel("version")
        plot.show_legend(LegendLocation.TOPRIGHT)


def _sparklines(curves: dict[str, Curve], width: int) -> Text:
    """Return a line per curve: first loss, bars, last loss."""
    losses = [loss for curve in curves.values() for _, loss in curve]
    if not losses:
        return Text("no loss yet")
    low, high = min(losses), max(losses)
    lines = []
    for name, curve in curves.items():
        losses = [loss for _, loss in curve]
        if losses:
            bars = sparkline(downsample(losses, width), low, high)
            lines.append(f"{name:<14} {losses[0]:.3f} {bars} {losses[-1]:.3f}")
    return Text("\n".join(lines), no_wrap=True, overflow="ellipsis")
