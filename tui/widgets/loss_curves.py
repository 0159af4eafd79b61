"""The losses over the versions: a plot where there is room, else a line of bars per curve."""

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
from tui.data.figures import boundaries
from tui.widgets.sparkline import downsample, sparkline

LEAST_WIDTH, LEAST_HEIGHT = 60, 12  # of a plot that one can read
POINTS = 400  # per curve; a terminal has no more columns

Curve = Sequence[tuple[int, float]]


def loss_curves(versions: Sequence[VersionSummary]) -> dict[str, Curve]:
    """Loss by version, of each measure: what was trained on, and holdouts before training."""
    return {
        "train": [(v.version, v.train_loss) for v in versions if v.train_loss is not None],
        "holdout before": [
            (v.version, v.holdout_before) for v in versions if v.holdout_before is not None
        ],
    }


class _Plot(PlotWidget, can_focus=False):
    """Looked at, not walked through: keys and wheel stay with the pane."""


class LossCurves(Container):
    """Redrawn when there is a new version, or another size."""

    def __init__(self, phases: Sequence[str] = (), **arguments: Any) -> None:
        super().__init__(**arguments)
        self._versions: Sequence[VersionSummary] = ()
        self._phases = phases

    def compose(self) -> ComposeResult:
        """Both ways to show it; one is visible."""
        yield _Plot(allow_pan_and_zoom=False)
        yield Static(id="sparks")

    def on_mount(self) -> None:
        """The room decides."""
        self.query_one(_Plot).margin_left = 7
        self._choose()

    def show(self, versions: Sequence[VersionSummary], phases: Sequence[str]) -> None:
        """Show these versions; phases are named where they begin."""
        last = self._versions[-1] if self._versions else None
        if versions and versions[-1] != last:
            self._versions, self._phases = versions, phases
            self._choose()
            self._draw()

    def on_resize(self, _: events.Resize) -> None:
        """Another size may want the other way."""
        self._choose()
        self._draw()

    @property
    def plotted(self) -> bool:
        """Whether there is something to plot, and room for it."""
        roomy = self.size.width >= LEAST_WIDTH and self.size.height >= LEAST_HEIGHT
        # One point has no scale.
        return roomy and any(len(curve) > 1 for curve in loss_curves(self._versions[-3:]).values())

    def _choose(self) -> None:
        self.query_one(_Plot).display = self.plotted
        self.query_one("#sparks").display = not self.plotted

    def _draw(self) -> None:
        if self.plotted:
            self._plot(loss_curves(self._versions))
        else:
            # Losses of two objectives have no scale in common: only this phase's.
            phase = self._versions[-1].phase if self._versions else 0
            found = loss_curves([version for version in self._versions if version.phase == phase])
            self.query_one("#sparks", Static).update(sparks(found, max(10, self.size.width - 34)))

    def _plot(self, found: dict[str, Curve]) -> None:
        plot = self.query_one(_Plot)
        plot.clear()
        # Two textures beside two colours: legible without the latter.
        looks = {
            "train": ("cyan", HiResMode.BRAILLE),
            "holdout before": ("yellow", HiResMode.QUADRANT),
        }
        borders = boundaries(self._versions)
        starts = [0, *(version for version, _ in borders)]
        ends = [*starts[1:], sys.maxsize]
        for name, curve in found.items():
            style, mode = looks[name]
            label: str | None = name
            # Two objectives have two kinds of loss: no line leads from one to the other.
            for start, end in zip(starts, ends, strict=True):
                part = [point for point in curve if start <= point[0] < end]
                points = part[:: -max(1, len(part) // POINTS)]  # the newest is always there
                if points:
                    x, y = zip(*points, strict=True)
                    plot.plot(x, y, line_style=style, hires_mode=mode, label=label)
                    label = None
        for version, phase in borders:
            begun = f"{self._phases[phase]} begins" if phase < len(self._phases) else None
            plot.add_v_line(version, line_style="magenta", label=begun)
        plot.set_xlabel("version")
        plot.show_legend(LegendLocation.TOPRIGHT)


def sparks(found: dict[str, Curve], width: int) -> Text:
    """One line per curve: bars, first and last loss."""
    everything = [loss for curve in found.values() for _, loss in curve]
    if not everything:
        return Text("no loss yet")
    low, high = min(everything), max(everything)
    lines = []
    for name, curve in found.items():
        losses = [loss for _, loss in curve]
        if losses:
            bars = sparkline(downsample(losses, width), low, high)
            lines.append(f"{name:<14} {losses[0]:.3f} {bars} {losses[-1]:.3f}")
    return Text("\n".join(lines), no_wrap=True, overflow="ellipsis")
