"""The samples pane: one prompt, and what the base and versions answer."""

from __future__ import annotations

import pytest
from textual.pilot import Pilot

from tests.support.tui.views import Host, drive, look, sample, screen, until
from tui.panes.samples import SamplesPane
from tui.widgets.row_list import RowList

VERSIONS = (0, 2, 4, 6, 8)
BOTH = [sample(v, asked) for v in VERSIONS for asked in ("What is it?", "Why?")]


def order(host: Host, *words: str) -> bool:
    """Whether they stand on the screen, each behind the one before."""
    places = [screen(host).find(word) for word in words]
    return -1 not in places and places == sorted(places)


def together(host: Host, *words: str) -> bool:
    """Whether some line has them all."""
    return any(all(word in line for word in words) for line in screen(host).splitlines())


def test_before_anything_is_there_it_says_what_to_do() -> None:
    host = Host(SamplesPane())

    async def script(pilot: Pilot[None]) -> None:
        host.pane.show(look())
        await until(pilot, "empty", lambda: "No version has answered yet." in screen(host))
        assert "samples.prompts" in screen(host)

    drive(host, script, (80, 20))


@pytest.mark.parametrize(("width", "beside"), [(120, (8, 6)), (200, (8, 6, 4, 2))])
def test_the_base_and_the_newest_stand_side_by_side(width: int, beside: tuple[int, ...]) -> None:
    host = Host(SamplesPane())

    async def script(pilot: Pilot[None]) -> None:
        host.pane.show(look(samples=BOTH))
        answers = [f"Answer {v}." for v in (0, *beside)]
        await until(pilot, "one line", lambda: together(host, *answers))
        assert order(host, "base", *(f"version {v}" for v in beside))
        assert f"Answer {min(beside) - 2}." not in screen(host) or min(beside) == 2
        await until(pilot, "the row's own", lambda: "expected  It is a test." in screen(host))
        assert "the base and 4 versions answered · newest first" in screen(host)

    drive(host, script, (width, 30))


def test_on_a_narrow_screen_they_stand_below_each_other() -> None:
    host = Host(SamplesPane())

    async def script(pilot: Pilot[None]) -> None:
        host.pane.show(look(samples=BOTH))
        answers = ["Answer 0.", "version 8", "Answer 8.", "version 6"]
        await until(pilot, "all", lambda: order(host, "base", *answers))
        assert not together(host, "Answer 0.", "Answer 8.")

    drive(host, script, (80, 21))  # of 24, which the app's own lines leave


def test_arrows_choose_the_prompt_and_the_version_which_stays_while_others_arrive() -> None:
    host = Host(SamplesPane())

    async def script(pilot: Pilot[None]) -> None:
        host.pane.show(look(samples=BOTH))
        host.query_one(RowList).focus()
        await pilot.press("down", "left", "left")
        await until(pilot, "the prompt", lambda: "asked     Why?" in screen(host))
        await until(pilot, "back", lambda: together(host, "base", "version 4", "version 2"))
        more = [*BOTH, sample(10, "What is it?"), sample(10, "Why?")]
        host.pane.show(look(samples=more))
        await until(pilot, "arrived", lambda: "5 versions" in screen(host))
        assert together(host, "base", "version 4") and "from version 4 back" in screen(host)
        assert "asked     Why?" in screen(host)
        await pilot.press("right", "right", "right", "right")
        await until(pilot, "the newest", lambda: together(host, "base", "version 10", "version 8"))
        host.pane.show(look(samples=[*more, sample(12, "Why?")]))
        await until(pilot, "it follows", lambda: together(host, "base", "version 12"))
        await pilot.press(*(["left"] * 9))
        await until(pilot, "the oldest", lambda: together(host, "base", "version 2"))

    drive(host, script, (120, 30))


def test_a_class_stands_with_its_probability_and_hostile_text_is_text() -> None:
    host = Host(SamplesPane())
    text = "[red]a [/film] that \x1b[2J"
    shown = [
        sample(0, text, kind="cls", expected="good", answer="bad", probability=0.5134),
        sample(2, text, kind="cls", expected="good", answer="good", probability=0.94),
    ]

    async def script(pilot: Pilot[None]) -> None:
        host.pane.show(look(samples=shown))
        await until(pilot, "both", lambda: together(host, "bad  0.51  ✗ wrong", "0.94  ✓ right"))
        await until(pilot, "the text", lambda: "asked     [red]a [/film] that  [2J" in screen(host))

    drive(host, script, (120, 30))
