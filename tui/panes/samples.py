"""Samples pane: answers of the base model and of the versions to the same held-out prompt.

Shows what `evaluation/live_samples.py` generated: side by side where there is room, otherwise one
below the other. The newest versions stand beside the base unless the user goes back to older ones.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import ClassVar

from rich.console import Group, RenderableType
from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.widgets import Static

from common.protocol.versions import SampleAnswer
from tui.data.reader import Snapshot
from tui.formatting import plural
from tui.text_table import TextTable
from tui.widgets.row_list import RowList

ANSWER_WIDTH = 32  # columns that make an answer readable
MIN_COLUMNS = 3  # with fewer, more answers are visible one below the other
PROMPTS_HEADER = "held-out prompts: choose with ↑ ↓"
EMPTY = """No version has answered yet.

During the run, the base model, about every eighth version and the last version of each phase
answer held-out rows; a large model takes a while on a CPU. In federation.toml,
samples.prompts is the number of rows (0 for none), and samples.every is how often."""


def list_prompts(samples: Sequence[SampleAnswer]) -> list[str]:
    """Return the prompts in the order of their first answers."""
    return list(dict.fromkeys(sample.asked for sample in samples))


def order_answers(answers: Sequence[SampleAnswer], newest: int | None) -> list[SampleAnswer]:
    """Return the answers to one prompt: that of the base, then those of versions, newest first.

    Versions later than `newest` are left out.
    """
    base = [each for each in answers if each.version == 0]
    later = [each for each in answers if each.version > 0]
    return base + [each for each in reversed(later) if newest is None or each.version <= newest]


class SamplesPane(Vertical):
    """Prompts, and below them the answers to the one under the cursor."""

    DEFAULT_CSS = """
    SamplesPane > #samples-prompts { height: auto; max-height: 5; min-height: 2; }
    SamplesPane > #samples-asked { height: auto; max-height: 6; border-top: solid $panel; }
    SamplesPane > #samples-head { height: 1; background: $panel; }
    SamplesPane #samples-answers { height: auto; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        # Takes precedence over scrolling sideways in the list, which has nothing there.
        Binding("left", "turn(1)", "older", show=False, priority=True),
        Binding("right", "turn(-1)", "newer", show=False, priority=True),
    ]

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self._samples: tuple[SampleAnswer, ...] = ()
        self._newest: int | None = None  # the version beside the base, if the user chose one
        self._objectives: dict[int, str] = {}  # by version

    def compose(self) -> ComposeResult:
        yield RowList(header=PROMPTS_HEADER, id="samples-prompts")
        yield Static(id="samples-asked", markup=False)
        yield Static(id="samples-head", markup=False)
        with VerticalScroll():
            yield Static(id="samples-answers", markup=False)

    def on_mount(self) -> None:
        self._draw()

    def show(self, snapshot: Snapshot) -> None:
        view = snapshot.view
        samples = view.samples if view else ()
        if view is None or samples is self._samples:
            return
        self._samples, phases = samples, view.info.phases
        self._objectives = {
            each.version: phases[each.phase] for each in view.versions if each.phase < len(phases)
        }
        kinds = {sample.asked: sample.kind for sample in samples}
        prompts = list_prompts(samples)
        self.query_one(RowList).set_rows(
            prompts, lambda row: Text(f"{row + 1:>2} {kinds[prompts[row]]:<3} {prompts[row]}")
        )
        self._draw()

    def action_turn(self, step: int) -> None:
        """Move to an older (1) or newer (-1) version; at the newest, follow new versions."""
        versions = [each.version for each in order_answers(self._answers(), None) if each.version]
        if not versions:
            return
        at = versions.index(self._newest) if self._newest in versions else 0
        at = max(0, min(at + step, len(versions) - 1))
        self._newest = versions[at] if at else None
        self._draw()

    def on_resize(self) -> None:
        self._draw()

    @on(RowList.CursorMoved)
    def _on_cursor_moved(self, message: RowList.CursorMoved) -> None:
        message.stop()
        self._draw()

    def _answers(self) -> list[SampleAnswer]:
        chosen = self.query_one(RowList).key
        return [sample for sample in self._samples if sample.asked == chosen]

    def _draw(self) -> None:
        answers = self._answers()
        for name in ("prompts", "asked", "head"):
            self.query_one(f"#samples-{name}").display = bool(answers)
        body = self.query_one("#samples-answers", Static)
        if not answers:
            body.update(Text(EMPTY))
            return
        self.query_one("#samples-asked", Static).update(_prompt_text(answers[0]))
        self.query_one("#samples-head", Static).update(_heading(answers, self._newest))
        ordered, columns = order_answers(answers, self._newest), self.size.width // ANSWER_WIDTH
        if columns >= MIN_COLUMNS:
            cells = [(self._title(each), _answer_text(each)) for each in ordered[:columns]]
            body.update(_side_by_side(cells))
        else:
            body.update(_stacked([(self._title(each), _answer_text(each)) for each in ordered]))

    def _title(self, sample: SampleAnswer) -> Text:
        if sample.version == 0:
            return Text("base", style="bold")
        clock = time.strftime("%H:%M:%S", time.localtime(sample.at))
        objective = self._objectives.get(sample.version, "")[:5]
        return Text.assemble((f"version {sample.version}", "bold"), f"  {objective}  {clock}")


def _prompt_text(sample: SampleAnswer) -> Text:
    prompt = Text("prompt    ", style="bold")
    expected = Text("\nexpected  ", style="bold")
    return Text.assemble(prompt, sample.asked, expected, sample.expected)


def _heading(answers: Sequence[SampleAnswer], newest: int | None) -> str:
    count = sum(1 for each in answers if each.version)
    order = "newest first" if newest is None else f"from version {newest} back"
    return f"answers of the base and {plural(count, 'version')} · {order} · ← older → newer"


def _side_by_side(cells: Sequence[tuple[Text, Text]]) -> RenderableType:
    table = TextTable.grid(expand=True, padding=(0, 2, 0, 0))
    for _ in cells:
        table.add_column(ratio=1, overflow="fold")
    table.add_row(*(title for title, _ in cells))
    table.add_row(*(answer for _, answer in cells))
    return table


def _stacked(cells: Sequence[tuple[Text, Text]]) -> RenderableType:
    return Group(*(Text.assemble(title, "\n", answer, "\n") for title, answer in cells))


def _answer_text(sample: SampleAnswer) -> Text:
    """Return the answer; for a class with its probability and whether it is right."""
    if sample.probability is None:
        return Text(sample.answer or "(nothing)", style="" if sample.answer else "dim")
    right = sample.answer == sample.expected
    mark = Text("✓ right", style="green") if right else Text("✗ wrong", style="red")
    return Text.assemble(f"{sample.answer}  {sample.probability:.2f}  ", mark)
