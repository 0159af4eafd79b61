"""Figures and health checks of a run, with numbers that can be checked by hand."""

from __future__ import annotations

import pytest

from common.byte_sizes import format_bytes
from common.protocol.versions import VersionSummary
from common.store.view import FederationView
from tests.support.tui.builders import client, heartbeat, info, update, version
from tui.data import figures, health
from tui.data.command_sender import SentCommand, status_line
from tui.formatting import format_duration
from tui.widgets.bar import histogram_bar, progress_bar
from tui.widgets.sparkline import downsample, sparkline

# Two updates each at 0 s, 30 s and 60 s.
THREE = [version(n + 1, update("a"), update("b"), at=30.0 * n) for n in range(3)]


def test_pace_counts_what_was_committed_after_the_first_version_of_the_window() -> None:
    assert figures.measure_pace(THREE, now=60.0) == figures.Pace(updates=4.0, versions=2.0)
    assert figures.measure_pace(THREE, now=120.0) == figures.Pace(updates=2.0, versions=1.0)
    assert figures.measure_pace(THREE[:1], now=60.0) is None
    late = [version(n + 1, update("a"), update("b"), at=3600 + 30.0 * n) for n in range(3)]
    pace = figures.measure_pace([version(0), *late], now=3660.0)
    assert pace == figures.Pace(updates=4.0, versions=2.0)
    assert figures.measure_pace([version(1, at=1.0), version(2, at=1.0)], now=1.0) is None


def test_the_time_left_follows_from_the_pace() -> None:
    pace = figures.Pace(updates=4.0, versions=2.0)
    assert figures.estimate_seconds_left(2, 12, pace) == 300.0
    assert figures.estimate_seconds_left(2, 12, None) is None


def test_only_training_workers_count_for_the_tokens_per_second() -> None:
    workers = [
        heartbeat("a", state="training", tokens_per_s=10.0),
        heartbeat("b", state="training", tokens_per_s=5.0),
        heartbeat("c", state="waiting", tokens_per_s=7.0),
    ]
    assert figures.total_tokens_per_s(workers) == 15.0
    assert figures.count_states(workers) == {"training": 2, "waiting": 1}


def test_updates_count_as_uploaded_and_their_base_as_downloaded() -> None:
    versions = [version(0, nbytes=1000), version(1, update("a"), update("b"), nbytes=2000)]
    assert figures.uploaded_bytes(versions) == 2000
    assert figures.downloaded_bytes(versions) == 2000
    assert figures.downloaded_bytes([*versions, version(2, update("a", base_version=1))]) == 4000


def test_recent_weights_are_none_where_a_client_had_no_update() -> None:
    versions = [version(1, update("a", weight=0.25)), version(2, update("b")), version(3)]
    applied = figures.updates_by_client(versions)["a"]
    assert figures.recent_weights(applied, newest=3, count=3) == (0.25, None, None)
    assert figures.recent_weights(applied, newest=3, count=2) == (None, None)


def test_the_slowest_clients_are_ordered_by_their_median() -> None:
    versions = [
        version(n, update("a", train_seconds=seconds), update("b", train_seconds=2.0))
        for n, seconds in enumerate([1.0, 1.0, 60.0], 1)
    ]
    slowest = figures.slowest_clients(figures.updates_by_client(versions))
    assert slowest == [("b", 2.0), ("a", 1.0)]


@pytest.mark.parametrize(
    ("losses", "good"),
    [([4.0, 4.0, 3.0, 3.0], True), ([3.0, 3.0, 4.0, 4.0], False), ([4.0, 3.0], None)],
)
def test_a_run_learns_when_the_holdout_loss_falls(losses: list[float], good: bool | None) -> None:
    versions = [version(n, holdout_before=loss) for n, loss in enumerate(losses, 1)]
    assert health.check_learning(versions).good is good


@pytest.mark.parametrize(
    ("losses", "good"),
    [([4.0, 4.0, 3.0, 3.0], True), ([3.0, 3.0, 4.0, 4.0], False), ([4.0, 3.0], None)],
)
def test_a_run_that_measures_no_holdout_is_judged_by_its_training_loss(
    losses: list[float], good: bool | None
) -> None:
    versions = [version(n, train_loss=loss) for n, loss in enumerate(losses, 1)]
    check = health.check_learning(versions)
    assert check.good is good
    assert good is None or check.text.startswith("training loss ")
    assert good is None or check.text.endswith(" (no holdout)")


def test_losses_of_an_earlier_phase_do_not_count_as_learning() -> None:
    first = [version(n, phase=0, holdout_before=4.0) for n in (1, 2, 3)]
    versions = [*first, *(version(n, phase=1, holdout_before=0.7) for n in (4, 5))]
    assert health.check_learning(versions).good is None
    assert figures.phase_starts(versions) == ((4, 1),)


def view(workers: int, status: str = "running", quarantined: bool = False) -> FederationView:
    heartbeats = tuple(heartbeat(f"w{n}") for n in range(workers))
    rows = (client("client_0", quarantined=quarantined),)
    return FederationView(info(status=status), rows, heartbeats, (), (), ())


def test_a_run_is_healthy_with_live_workers_and_without_quarantined_clients() -> None:
    assert health.check_health(view(1)).good is True
    assert health.check_health(view(0)).good is False
    assert health.check_health(view(1, quarantined=True)).good is None
    assert health.check_health(view(1, status="failed")).good is False
    assert health.check_health(view(0, status="finished")).good is True


def test_a_client_far_slower_than_the_others_is_named() -> None:
    quick = [update(name, train_seconds=1.0) for name in "abc"]

    def check(versions: list[VersionSummary]) -> health.HealthCheck:
        slowest = figures.slowest_clients(figures.updates_by_client(versions))
        return health.check_balance(versions, slowest)

    assert check([version(1, *quick)]).good is True
    late = check([version(1, *quick, update("d", train_seconds=4.0))])
    assert late.good is False
    assert late.text.startswith("d 4.0 s")


def test_workers_with_the_same_name_at_two_sites_are_counted_apart() -> None:
    versions = [version(1, update("a"), update("b")), version(2, update("a"))]
    sites = figures.sites_by_client([client("a", "x"), client("b")])
    applied = figures.updates_by_worker(versions, sites)
    assert {name: [number for number, _ in each] for name, each in applied.items()} == {
        "x/w1": [1, 2],
        "local/w1": [1],
    }


@pytest.mark.parametrize(
    ("phase", "at", "expected"), [(0, 3, (3, 4)), (1, 4, (0, 6)), (1, 10, (6, 6))]
)
def test_progress_counts_the_versions_of_the_phase(
    phase: int, at: int, expected: tuple[int, int]
) -> None:
    now = info(phase=phase, version=at, phases=("sft", "dpo"), phase_ends=(4, 10))
    assert figures.phase_progress(now) == figures.PhaseProgress(*expected)


def test_a_coordinator_without_phase_ends_has_no_progress() -> None:
    assert figures.phase_progress(info(phase_ends=())) is None


def test_a_progress_bar_is_full_only_when_all_is_done() -> None:
    assert progress_bar(1, 4, 8) == "██░░░░░░"
    assert progress_bar(0, 0, 2) == "░░"
    assert progress_bar(999, 1000, 4) == "███░"


def test_a_histogram_bar_shows_any_value_above_zero() -> None:
    bars = [histogram_bar(n, 100, 10) for n in (0, 1, 50, 100)]
    assert bars == ["", "█", "█████", "█" * 10]


def test_a_sparkline_has_gaps_and_keeps_within_its_bounds() -> None:
    assert sparkline([0.0, None, 1.0, 9.0], 0, 1) == "▁·██"
    assert downsample([1.0, 3.0, 5.0, 7.0], 2) == [2.0, 6.0]


def test_sizes_and_durations_have_units_for_people() -> None:
    sizes = [format_bytes(n) for n in (0, 1023, 1024, 1536 * 1024, 3 << 30)]
    assert sizes == ["0 B", "1023 B", "1.0 KiB", "1.5 MiB", "3.0 GiB"]
    durations = [format_duration(s) for s in (45, 180, 7500, 273600)]
    assert durations == ["45 s", "3 min", "2 h 5 min", "3 d 4 h"]


def test_a_command_is_shown_as_requested_until_it_has_an_outcome() -> None:
    command = SentCommand("kick", "client_1", sent_at=0.0)
    assert status_line(command, 2.0) == ("note", "kick client_1: requested 2 s ago")
    level, text = status_line(command, 15.0) or ("", "")
    assert level == "warning" and "no answer" in text
    done = SentCommand("pause", "", sent_at=0.0, state="done", state_since=3.0)
    assert status_line(done, 4.0) == ("note", "pause: done")
    assert status_line(done, 60.0) is None
    refused = SentCommand(
        "pause", "", sent_at=0.0, state="refused", state_since=3.0, reason="it is over"
    )
    assert status_line(refused, 4.0) == ("error", "pause: refused: it is over")
