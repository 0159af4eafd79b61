"""Samples pane: answers of the base and of versions to one prompt."""

from __future__ import annotations

import pytest
from textual.pilot import Pilot

from tests.support.tui.builders import sample, snapshot
from tests.support.tui.pilot import PaneApp, run_pane, screen_text, wait_until
from tui.panes.samples import SamplesPane
from tui.widgets.row_list import RowList

VERSIONS = (0, 2, 4, 6, 8)
BOTH = [sample(v, asked) for v in VERSIONS for asked in ("What is it?", "Why?")]


def order(app: PaneApp, *words: str) -> bool:
    """Return whether the words are on the screen in this order."""
    places = [screen_text(app).find(word) for word in words]
    return -1 not in places and places == sorted(places)


def together(app: PaneApp, *words: str) -> bool:
    """Return whether some line contains all the words."""
    return any(all(word in line for word in words) for line in screen_text(app).splitlines())


def test_a_run_without_samples_shows_an_explanation() -> None:
    app = PaneApp(SamplesPane())

    async def script(pilot: Pilot[None]) -> None:
        app.pane.show(snapshot())
        await wait_until(pilot, "empty", lambda: "No version has answered yet." in screen_text(app))
        assert "samples.prompts" in screen_text(app)

    run_pane(app, script, (80, 20))


@pytest.mark.parametrize(("width", "beside"), [(120, (8, 6)), (200, (8, 6, 4, 2))])
def test_the_base_and_the_newest_versions_stand_side_by_side(
    width: int, beside: tuple[int, ...]
) -> None:
    app = PaneApp(SamplesPane())

    async def script(pilot: Pilot[None]) -> None:
        app.pane.show(snapshot(samples=BOTH))
        answers = [f"Answer {v}." for v in (0, *beside)]
        await wait_until(pilot, "one line", lambda: together(app, *answers))
        assert order(app, "base", *(f"version {v}" for v in beside))
        assert f"Answer {min(beside) - 2}." not in screen_text(app) or min(beside) == 2
        await wait_until(
            pilot, "the row's own", lambda: "expected  It is a test." in screen_text(app)
        )
        assert "answers of the base and 4 versions · newest first" in screen_text(app)

    run_pane(app, script, (width, 30))


def test_on_a_narrow_screen_answers_stand_below_each_other() -> None:
    app = PaneApp(SamplesPane())

    async def script(pilot: Pilot[None]) -> None:
        app.pane.show(snapshot(samples=BOTH))
        answers = ["Answer 0.", "version 8", "Answer 8.", "version 6"]
        await wait_until(pilot, "all", lambda: order(app, "base", *answers))
        assert not together(app, "Answer 0.", "Answer 8.")

    run_pane(app, script, (80, 21))  # of 24, which the app's own lines leave


def test_the_prompt_and_version_chosen_with_arrows_stay_while_others_arrive() -> None:
    app = PaneApp(SamplesPane())

    async def script(pilot: Pilot[None]) -> None:
        app.pane.show(snapshot(samples=BOTH))
        app.query_one(RowList).focus()
        await pilot.press("down", "left", "left")
        await wait_until(pilot, "the prompt", lambda: "prompt    Why?" in screen_text(app))
        await wait_until(pilot, "back", lambda: together(app, "base", "version 4", "version 2"))
        more = [*BOTH, sample(10, "What is it?"), sample(10, "Why?")]
        app.pane.show(snapshot(samples=more))
        await wait_until(pilot, "arrived", lambda: "5 versions" in screen_text(app))
        assert together(app, "base", "version 4") and "from version 4 back" in screen_text(app)
        assert "prompt    Why?" in screen_text(app)
        await pilot.press("right", "right", "right", "right")
        await wait_until(
            pilot, "the newest", lambda: together(app, "base", "version 10", "version 8")
        )
        app.pane.show(snapshot(samples=[*more, sample(12, "Why?")]))
        await wait_until(pilot, "it follows", lambda: together(app, "base", "version 12"))
        await pilot.press(*(["left"] * 9))
        await wait_until(pilot, "the oldest", lambda: together(app, "base", "version 2"))

    run_pane(app, script, (120, 30))


def test_a_class_is_shown_with_its_probability_and_markup_is_not_interpreted() -> None:
    app = PaneApp(SamplesPane())
    text = "[red]a [/film] that \x1b[2J"
    shown = [
        sample(0, text, kind="cls", expected="good", answer="bad", probability=0.5134),
        sample(2, text, kind="cls", expected="good", answer="good", probability=0.94),
    ]

    async def script(pilot: Pilot[None]) -> None:
        app.pane.show(snapshot(samples=shown))
        await wait_until(
            pilot, "both", lambda: together(app, "bad  0.51  ✗ wrong", "0.94  ✓ right")
        )
        await wait_until(
            pilot, "the text", lambda: "prompt    [red]a [/film] that  [2J" in screen_text(app)
        )

    run_pane(app, script, (120, 30))
