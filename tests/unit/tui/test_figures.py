"""What the live screen derives from a run, by numbers that one can check by hand."""

from __future__ import annotations

import pytest

from common.protocol.versions import VersionSummary
from common.store.view import FederationView
from tests.support.tui.live_app import client, heartbeat, info, update, version
from tui.data import figures
from tui.data.command_sender import SentCommand, status_line
from tui.formatting import format_bytes, format_duration
from tui.widgets.bar import bar
from tui.widgets.sparkline import downsample, sparkline

# Two updates each at 0 s, 30 s and 60 s.
THREE = [version(n + 1, update("a"), update("b"), at=30.0 * n) for n in range(3)]


def test_pace_counts_what_was_committed_since_the_first_of_the_window() -> None:
    assert figures.pace(THREE, now=60.0) == figures.Pace(updates=4.0, versions=2.0)
    assert figures.pace(THREE, now=120.0) == figures.Pace(updates=2.0, versions=1.0)
    assert figures.pace(THREE[:1], now=60.0) is None
    late = [version(n + 1, update("a"), update("b"), at=3600 + 30.0 * n) for n in range(3)]
    assert figures.pace([version(0), *late], now=3660.0) == figures.Pace(updates=4.0, versions=2.0)
    assert figures.pace([version(1, at=1.0), version(2, at=1.0)], now=1.0) is None


def test_what_is_left_follows_from_the_pace() -> None:
    assert figures.seconds_left(2, 12, figures.Pace(updates=4.0, versions=2.0)) == 300.0
    assert figures.seconds_left(2, 12, None) is None


def test_only_a_worker_that_trains_adds_to_the_tokens() -> None:
    workers = [
        heartbeat("a", state="training", tokens_per_s=10.0),
        heartbeat("b", state="training", tokens_per_s=5.0),
        heartbeat("c", state="waiting", tokens_per_s=7.0),
    ]
    assert figures.tokens_per_s(workers) == 15.0
    assert figures.states(workers) == {"training": 2, "waiting": 1}


def test_bytes_go_up_with_updates_and_down_with_their_base() -> None:
    versions = [version(0, nbytes=1000), version(1, update("a"), update("b"), nbytes=2000)]
    assert figures.bytes_up(versions) == 200
    assert figures.bytes_down(versions) == 2000
    assert figures.bytes_down([*versions, version(2, update("a", base=1))]) == 4000


def test_weights_have_gaps_where_a_client_was_not_in_a_version() -> None:
    versions = [version(1, update("a", weight=0.25)), version(2, update("b")), version(3)]
    done = figures.by_client(versions)["a"]
    assert figures.weights(done, newest=3, count=3) == (0.25, None, None)
    assert figures.weights(done, newest=3, count=2) == (None, None)


def test_the_slowest_come_first_by_their_median() -> None:
    versions = [
        version(n, update("a", train_seconds=seconds), update("b", train_seconds=2.0))
        for n, seconds in enumerate([1.0, 1.0, 60.0], 1)
    ]
    assert figures.slowest(figures.by_client(versions)) == [("b", 2.0), ("a", 1.0)]


@pytest.mark.parametrize(
    ("losses", "good"),
    [([4.0, 4.0, 3.0, 3.0], True), ([3.0, 3.0, 4.0, 4.0], False), ([4.0, 3.0], None)],
)
def test_a_run_learns_when_the_holdout_loss_falls(losses: list[float], good: bool | None) -> None:
    versions = [version(n, holdout_before=loss) for n, loss in enumerate(losses, 1)]
    assert figures.learning(versions).good is good


def test_the_loss_of_another_objective_says_nothing_of_this_phase() -> None:
    first = [version(n, phase=0, holdout_before=4.0) for n in (1, 2, 3)]
    versions = [*first, *(version(n, phase=1, holdout_before=0.7) for n in (4, 5))]
    assert figures.learning(versions).good is None
    assert figures.boundaries(versions) == ((4, 1),)


def view(workers: int, status: str = "running", out: bool = False) -> FederationView:
    beats = tuple(heartbeat(f"w{n}") for n in range(workers))
    rows = (client(0, quarantined=out),)
    return FederationView(info("r", status=status), rows, beats, (), (), ())


def test_a_run_is_healthy_while_workers_live_and_nobody_is_out() -> None:
    assert figures.healthy(view(1)).good is True
    assert figures.healthy(view(0)).good is False
    assert figures.healthy(view(1, out=True)).good is None
    assert figures.healthy(view(1, status="failed")).good is False
    assert figures.healthy(view(0, status="finished")).good is True


def test_one_far_slower_than_usual_is_named() -> None:
    quick = [update(name, train_seconds=1.0) for name in "abc"]

    def slow(versions: list[VersionSummary]) -> figures.HealthCheck:
        return figures.slow(versions, figures.slowest(figures.by_client(versions)))

    assert slow([version(1, *quick)]).good is True
    late = slow([version(1, *quick, update("d", train_seconds=4.0))])
    assert late.good is False
    assert late.text.startswith("d 4.0 s")


def test_workers_of_one_name_at_two_sites_are_two() -> None:
    versions = [version(1, update("a"), update("b")), version(2, update("a"))]
    done = figures.by_worker(
        versions, figures.sites([client(0, client_id="a", site="x"), client(1, client_id="b")])
    )
    assert {name: [number for number, _ in each] for name, each in done.items()} == {
        "x/w": [1, 2],
        "local/w": [1],
    }


@pytest.mark.parametrize(
    ("phase", "at", "expected"), [(0, 3, (3, 4)), (1, 4, (0, 6)), (1, 10, (6, 6))]
)
def test_a_phase_is_as_far_as_its_versions(phase: int, at: int, expected: tuple[int, int]) -> None:
    now = info("r", phase=phase, version=at, phases=("sft", "dpo"), phase_ends=(4, 10))
    assert figures.phase_progress(now) == figures.PhaseProgress(*expected)
    assert figures.phase_progress(info("r", phase_ends=())) is None, "an older coordinator"


def test_bars_say_how_much() -> None:
    assert bar(1, 4, 8) == "██░░░░░░"
    assert bar(0, 0, 2) == "░░"
    assert bar(999, 1000, 4) == "███░", "full only when all is done"
    assert sparkline([0.0, None, 1.0, 9.0], 0, 1) == "▁·██"
    assert downsample([1.0, 3.0, 5.0, 7.0], 2) == [2.0, 6.0]


def test_numbers_read_like_a_person_says_them() -> None:
    assert [format_bytes(n) for n in (999, 1500, 2_000_000)] == ["999 B", "1.5 kB", "2.0 MB"]
    assert [format_duration(s) for s in (45, 180, 7500, 273600)] == [
        "45 s",
        "3 min",
        "2 h 5 min",
        "3 d 4 h",
    ]


def test_an_order_is_told_as_requested_then_as_what_became_of_it() -> None:
    order = SentCommand("kick", "client_1", asked=0.0)
    assert status_line(order, 2.0) == ("note", "kick client_1: requested 2 s ago")
    assert status_line(order, 15.0) == (
        "warning",
        "kick client_1: no answer from the coordinator for 15 s",
    )
    done = SentCommand("pause", "", asked=0.0, state="done", since=3.0)
    assert status_line(done, 4.0) == ("note", "pause: done")
    assert status_line(done, 60.0) is None
    refused = SentCommand("pause", "", asked=0.0, state="refused", since=3.0, reason="it is over")
    assert status_line(refused, 4.0) == ("error", "pause: refused: it is over")
