"""Derived figures, by numbers that can be checked by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.tui.views import client, event, queue, update, version
from tui.data import history
from tui.data.history import QueueName, QueueSample


def test_one_clients_updates_in_a_version_add_up() -> None:
    first = version(1, update("a", weight=0.2), update("a", weight=0.3), update("b"))
    assert history.weights([version(0), first, version(2, update("b", weight=1.0))]) == {
        "a": {1: 0.5},
        "b": {1: 0.5, 2: 1.0},
    }


def test_a_weight_is_a_digit_of_the_largest() -> None:
    assert [history.digit(w, 0.9) for w in (None, 0.0, 0.1, 0.5, 0.9)] == [" ", "0", "1", "5", "9"]
    assert history.digit(0.0, 0.0) == "0"


@given(st.floats(0, 1e6), st.floats(0, 1e6))
def test_a_digit_is_one_character(one: float, other: float) -> None:
    assert len(history.digit(min(one, other), max(one, other))) == 1


def test_names_sort_by_their_numbers() -> None:
    names = ["client_10", "client_9", "a-2-b", "a-10-b", "7"]
    assert sorted(names, key=history.natural) == ["a-2-b", "a-10-b", "client_9", "client_10", "7"]


@given(st.lists(st.text(max_size=8)))
def test_any_names_can_be_sorted(names: list[str]) -> None:
    assert sorted(sorted(names, key=history.natural)) == sorted(names)


def test_staleness_is_counted_without_gaps() -> None:
    updates = [update(staleness=age) for age in (0, 3, 3)]
    assert history.histogram([version(1, *updates)]) == {0: 1, 1: 0, 2: 0, 3: 2}
    assert history.histogram([version(0)]) == {}


def test_the_last_bin_takes_the_rest() -> None:
    assert history.bins({0: 5, 1: 4}, 3) == [("0", 5), ("1", 4)]
    assert history.bins({0: 5, 1: 4, 2: 3, 3: 2}, 3) == [("0", 5), ("1", 4), ("2+", 5)]
    assert history.bins({0: 5, 1: 4}, 1) == [("0+", 9)]


@given(st.lists(st.integers(0, 50), max_size=60), st.integers(1, 20))
def test_bins_lose_no_update(ages: list[int], most: int) -> None:
    counts = history.histogram([version(1, *(update(staleness=age) for age in ages))])
    found = history.bins(counts, most)
    assert len(found) <= most and sum(count for _, count in found) == len(ages)


def test_a_bar_shows_what_is_not_nothing() -> None:
    assert [history.bar(n, 100, 10) for n in (0, 1, 50, 100)] == ["", "█", "█████", "█" * 10]


def test_events_are_filtered_by_level_and_by_text_of_any_case() -> None:
    events = [
        event("one", client="Client_7"),
        event("two", "warning"),
        event("three", "error", "lease"),
    ]
    assert history.passing(events, "warning", "") == events[1:]
    assert history.passing(events, "info", "client_7") == events[:1]
    assert history.passing(events, "info", "LEASE") == events[2:]


def test_rejections_are_newest_first_with_their_reason_alone() -> None:
    events = [
        event("update of a rejected: stale", "warning", "rejected"),
        event("version 1"),
        event("odd", "warning", "rejected"),
    ]
    assert [history.reason(e) for e in history.rejections(events)] == ["odd", "stale"]


def test_an_event_leads_to_its_client_before_its_version() -> None:
    assert history.target(event("x", version=3)) == ("version", "3")
    assert history.target(event("x", version=3, client="a")) == ("client", "a")
    assert history.target(event("x", task="t1")) is None


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("fccl.r.tasks.local", QueueName("tasks", "local")),
        ("fccl.r.updates.s-1", QueueName("updates", "s-1")),
        ("fccl.r.dead", QueueName("dead", "")),
        ("celery", QueueName("other", "celery")),
        ("fccl.r.other.x", QueueName("other", "fccl.r.other.x")),
    ],
)
def test_a_queues_name_says_what_it_is_for(name: str, place: QueueName) -> None:
    assert history.place(name) == place


def sample(at: float, depth: int = 0, issued: int = 0) -> QueueSample:
    row = client("a", "s", issued=issued)
    return history.sample(at, [queue("tasks.s", depth)], [row])


def test_rates_are_differences_over_time() -> None:
    samples = (sample(1.0, 10, 0), sample(3.0, 4, 8))
    (site,) = history.sites([queue("tasks.s", 4)], samples)
    assert (site.tasks_growth, site.issued, site.applied) == (-3.0, 4.0, 0.0)
    assert site.updates is None and site.updates_growth is None
    assert history.growth(samples[:1], "fccl.r.tasks.s") is None


def test_a_site_counts_all_its_clients() -> None:
    rows = [client("a", "s", issued=2), client("b", "s", issued=3), client("c", "t", issued=5)]
    assert history.sample(0.0, [], rows).issued == {"s": 5, "t": 5}


def test_samples_older_than_the_window_are_forgotten_but_for_one() -> None:
    kept: tuple[QueueSample, ...] = ()
    for second in range(100):
        kept = history.remember(kept, sample(float(second)), window_s=10.0)
    assert [each.at for each in kept] == [float(s) for s in range(89, 100)]
    assert history.remember(kept, sample(99.0)) == kept


def test_the_dead_letters_are_found() -> None:
    assert history.dead([queue("tasks.s"), queue("dead", 2)]) == queue("dead", 2)
    assert history.dead([]) is None


def test_bytes_read_well() -> None:
    sizes = [history.size(n) for n in (0, 1023, 1024, 1536 * 1024, 3 << 30)]
    assert sizes == ["0 B", "1023 B", "1.0 KiB", "1.5 MiB", "3.0 GiB"]
