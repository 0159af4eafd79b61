"""Hours of a site: windows of wall-clock time, across midnight and the change to summer time."""

from __future__ import annotations

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.settings.hours import DAYS, Window, is_open, next_opening, parse_window

BERLIN = ZoneInfo("Europe/Berlin")


def at(text: str, fold: int = 0) -> float:
    """Return the time of a wall clock in Berlin; 2026-06-01 is a Monday."""
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN, fold=fold).timestamp()


def opening(window: str, now: str, fold: int = 0) -> str:
    found = next_opening([parse_window(window)], at(now, fold), BERLIN)
    return f"{datetime.fromtimestamp(found, BERLIN):%a %d %H:%M}"


@pytest.mark.parametrize(
    ("text", "days", "start", "end"),
    [
        ("22:00-06:00", range(7), 1320, 360),
        ("mon-fri 20:00-07:00", range(5), 1200, 420),
        ("sat,sun", (5, 6), 0, 1440),
        ("fri-mon 9:30-24:00", (4, 5, 6, 0), 570, 1440),
        ("Mon,Wed-Thu 00:00-08:00", (0, 2, 3), 0, 480),
    ],
)
def test_a_window_is_days_a_span_or_both(
    text: str, days: tuple[int, ...], start: int, end: int
) -> None:
    assert parse_window(text) == Window(frozenset(days), start, end)


@pytest.mark.parametrize(
    "text",
    ["", "22-06", "someday", "mon 22:00", "22:60-06:00", "24:00-06:00", "mon tue wed", "mon-"],
)
def test_other_texts_are_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match=r"write e.g|hours go from"):
        parse_window(text)


def test_a_window_over_midnight_belongs_to_the_day_on_which_it_opens() -> None:
    friday = [parse_window("fri 20:00-07:00")]
    assert is_open(friday, at("2026-06-05 20:00"), BERLIN)
    assert is_open(friday, at("2026-06-06 06:59"), BERLIN)  # Saturday
    assert not is_open(friday, at("2026-06-06 07:00"), BERLIN)
    assert not is_open(friday, at("2026-06-05 06:00"), BERLIN)  # of Thursday's window


def test_the_next_opening_is_the_start_of_the_next_window() -> None:
    assert opening("22:00-06:00", "2026-06-01 12:00") == "Mon 01 22:00"
    assert opening("22:00-06:00", "2026-06-01 23:00") == "Mon 01 23:00"  # open: now
    assert opening("sat,sun", "2026-06-01 12:00") == "Sat 06 00:00"
    assert opening("mon 08:00-09:00", "2026-06-01 09:00") == "Mon 08 08:00"


def test_an_opening_that_summer_time_skips_is_the_end_of_the_gap() -> None:
    # On 2026-03-29 the clock goes from 02:00 to 03:00.
    assert opening("02:30-05:00", "2026-03-29 01:00") == "Sun 29 03:00"
    assert opening("sun 02:10-02:50", "2026-03-29 01:00") == "Sun 05 02:10"  # a week later


def test_an_hour_that_comes_twice_is_open_twice() -> None:
    # On 2026-10-25 the clock goes from 03:00 back to 02:00.
    window = [parse_window("02:15-02:45")]
    assert is_open(window, at("2026-10-25 02:30"), BERLIN)
    assert is_open(window, at("2026-10-25 02:30", fold=1), BERLIN)
    assert opening("02:15-02:45", "2026-10-25 02:50", fold=0) == "Sun 25 02:15"


def test_without_windows_a_site_always_works() -> None:
    assert is_open([], 0.0) and next_opening([], 5.0) == 5.0


minutes = st.integers(0, 1439)
windows = st.builds(
    Window, st.frozensets(st.integers(0, 6), min_size=1), minutes, st.integers(1, 1440)
).filter(lambda window: window.start != window.end)


@settings(max_examples=40, deadline=None)
@given(st.lists(windows, min_size=1, max_size=3), st.integers(0, 2 * 366 * 1440), st.data())
def test_the_next_opening_is_open_and_nothing_before_it_is(
    chosen: list[Window], minute: int, data: st.DataObject
) -> None:
    now = at("2026-01-01 00:00") + 60 * minute + 30
    found = next_opening(chosen, now, BERLIN)
    assert is_open(chosen, found, BERLIN)
    if found > now:
        before = data.draw(st.integers(int(now), int(found) - 1))
        assert not is_open(chosen, before, BERLIN)


@given(st.frozensets(st.integers(0, 6), min_size=1), minutes, minutes, minutes)
def test_a_window_is_open_as_long_as_it_says(
    days: frozenset[int], start: int, length: int, offset: int
) -> None:
    """Without summer time, in whichever way the window is written."""
    length = length % 1438 + 1
    window = Window(days, start, (start + length - 1) % 1440 + 1)
    day = min(days)
    opened = datetime(2026, 6, 1) + timedelta(days=day, minutes=start)
    assert window.contains(opened) and window.contains(opened + timedelta(minutes=length - 1))
    closed = opened + timedelta(minutes=length)
    others = any(
        DAYS and Window(frozenset({d}), window.start, window.end).contains(closed)
        for d in days - {day}
    )
    assert window.contains(closed) == others
