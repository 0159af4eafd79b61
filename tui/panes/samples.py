"""The same held-out prompt, answered by the base and by one version after another.

After `evaluation/live_samples.py` on an answer's way. Side by side where there is room, else one below
the other; the newest versions stand beside the base unless older ones were asked for.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import ClassVar

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.widgets import Static

from common.protocol.versions import SampleAnswer
from tui.data.reader import Snapshot
from tui.widgets.row_list import RowList

COLUMN = 32  # of the terminal's columns, that an answer wants to be read in
FEWEST = 3  # answers side by side; below, more of them are seen one below the other
PROMPTS = "held-out prompts: ↑ ↓ choose one"
EMPTY = """No version has answered yet.

The coordinator has the base, about every eighth version and the last of each phase answer
held-out rows while the run goes on; a model that is slow on its CPU takes a while. In
federation.toml, samples.prompts says how many rows (0: none), samples.every how often."""


def prompts(samples: Sequence[SampleAnswer]) -> list[str]:
    """What was asked, in the order in which it was first asked."""
    return list(dict.fromkeys(sample.asked for sample in samples))


def beside(answers: Sequence[SampleAnswer], newest: int | None) -> list[SampleAnswer]:
    """The answers to show: the base's, then those of versions, newest first.

    Args:
        answers: To one prompt, by version.
        newest: The first version beside the base; None for the newest there is.
    """
    base = [each for each in answers if each.version == 0]
    later = [each for each in answers if each.version > 0]
    return base + [each for each in reversed(later) if newest is None or each.version <= newest]


class SamplesPane(Vertical):
    """Prompts above; below, the answers to the one under the cursor."""

    DEFAULT_CSS = """
    SamplesPane > #samples-prompts { height: auto; max-height: 5; min-height: 2; }
    SamplesPane > #samples-asked { height: auto; max-height: 6; border-top: solid $panel; }
    SamplesPane > #samples-head { height: 1; background: $panel; }
    SamplesPane #samples-answers { height: auto; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        # Before the table's own, which would scroll sideways where there is nothing.
        Binding("left", "turn(1)", "older", show=False, priority=True),
        Binding("right", "turn(-1)", "newer", show=False, priority=True),
    ]

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self._samples: tuple[SampleAnswer, ...] = ()
        self._newest: int | None = None  # beside the base, if it was chosen
        self._objectives: dict[int, str] = {}  # of the phases that made versions

    def compose(self) -> ComposeResult:
        """The prompts; the chosen one in full; the answers."""
        yield RowList(header=PROMPTS, id="samples-prompts")
        yield Static(id="samples-asked", markup=False)
        yield Static(id="samples-head", markup=False)
        with VerticalScroll():
            yield Static(id="samples-answers", markup=False)

    def on_mount(self) -> None:
        """Say what to do before anything is there."""
        self._draw()

    def show(self, snapshot: Snapshot) -> None:
        """Take in what is new."""
        view = snapshot.view
        samples = view.samples if view else ()
        if view is None or samples is self._samples:
            return
        self._samples, phases = samples, view.info.phases
        self._objectives = {
            made.version: phases[made.phase] for made in view.versions if made.phase < len(phases)
        }
        kinds = {sample.asked: sample.kind for sample in samples}
        asked = prompts(samples)
        self.query_one(RowList).put(
            asked, lambda row: Text(f"{row + 1:>2} {kinds[asked[row]]:<3} {asked[row]}")
        )
        self._draw()

    def action_turn(self, step: int) -> None:
        """Put an older version beside the base, or a newer one; the newest one is followed."""
        versions = [each.version for each in beside(self._answers(), None) if each.version]
        if not versions:
            return
        at = versions.index(self._newest) if self._newest in versions else 0
        at = max(0, min(at + step, len(versions) - 1))
        self._newest = versions[at] if at else None
        self._draw()

    def on_resize(self) -> None:
        """Other columns fit."""
        self._draw()

    @on(RowList.CursorMoved)
    def _moved(self, message: RowList.CursorMoved) -> None:
        message.stop()
        self._draw()

    def _answers(self) -> list[SampleAnswer]:
        chosen = self.query_one(RowList).key
        return [sample for sample in self._samples if sample.asked == chosen]

    def _draw(self) -> None:
        answers = self._answers()
        there = bool(answers)
        for name in ("prompts", "asked", "head"):
            self.query_one(f"#samples-{name}").display = there
        said = self.query_one("#samples-answers", Static)
        if not answers:
            said.update(Text(EMPTY))
            return
        self.query_one("#samples-asked", Static).update(_asked(answers[0]))
        found, room = beside(answers, self._newest), self.size.width // COLUMN
        self.query_one("#samples-head", Static).update(_head(answers, self._newest))
        shown = found[:room] if room >= FEWEST else found
        cells = [(self._title(each), _answer(each)) for each in shown]
        said.update(_columns(cells) if room >= FEWEST else _stack(cells))

    def _title(self, sample: SampleAnswer) -> Text:
        if sample.version == 0:
            return Text("base", style="bold")
        clock = time.strftime("%H:%M:%S", time.localtime(sample.at))
        about = f"  {self._objectives.get(sample.version, '')[:5]}  {clock}"
        return Text.assemble((f"version {sample.version}", "bold"), about)


def _asked(sample: SampleAnswer) -> Text:
    label = Text("asked     ", style="bold")
    wanted = Text("\nexpected  ", style="bold")
    return Text.assemble(label, sample.asked, wanted, sample.expected)


def _head(answers: Sequence[SampleAnswer], newest: int | None) -> str:
    count = sum(1 for each in answers if each.version)
    asked = f"the base and {count} version{'' if count == 1 else 's'} answered"
    where = "newest first" if newest is None else f"from version {newest} back"
    return f"{asked} · {where} · ← older → newer"


def _columns(cells: Sequence[tuple[Text, Text]]) -> RenderableType:
    table = Table.grid(expand=True, padding=(0, 2, 0, 0))
    for _ in cells:
        table.add_column(ratio=1, overflow="fold")
    table.add_row(*(title for title, _ in cells))
    table.add_row(*(answer for _, answer in cells))
    return table


def _stack(cells: Sequence[tuple[Text, Text]]) -> RenderableType:
    return Group(*(Text.assemble(title, "\n", answer, "\n") for title, answer in cells))


def _answer(sample: SampleAnswer) -> Text:
    """The text; of a class its probability, and whether it is right."""
    if sample.probability is None:
        return Text(sample.answer or "(nothing)", style="" if sample.answer else "dim")
    right = sample.answer == sample.expected
    mark = Text("✓ right", style="green") if right else Text("✗ wrong", style="red")
    return Text.assemble(f"{sample.answer}  {sample.probability:.2f}  ", mark)
