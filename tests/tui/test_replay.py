"""Replay of a recorded run: the clock, the views, and the keys."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.main import main
from common.run_directory import recorded_run
from common.store.view import FederationView
from tests.support.tui.pilot import screen_text, wait_until
from tests.support.tui.recordings import record
from tui import screenshot
from tui.data.recorded_views import view_at
from tui.data.replay import FASTEST, SLOWEST, PlaybackClock, Replay
from tui.replay_app import ReplayApp


class FakeClock:
    """Monotonic clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def run(tmp_path: Path) -> recorded_run.RecordedRun:
    return recorded_run.read_run(record(tmp_path / "r"))


def top(app: ReplayApp) -> str:
    return screen_text(app).splitlines()[0]


def view(source: Replay) -> FederationView:
    found = source.latest().view
    assert found is not None
    return found


def test_virtual_time_runs_at_its_speed_and_stops_at_the_end() -> None:
    clock = PlaybackClock(since=5.0, at=100.0, end=140.0, speed=10.0)
    assert [clock.time(now) for now in (4.0, 5.0, 6.0, 9.0, 99.0)] == [100, 100, 110, 140, 140]


@given(
    st.lists(
        st.tuples(st.floats(0, 1e3), st.floats(1e-9, 1e9), st.booleans()), min_size=1, max_size=20
    )
)
def test_no_change_of_speed_makes_time_jump_or_go_back(
    presses: list[tuple[float, float, bool]],
) -> None:
    clock, now, before = PlaybackClock(0.0, 100.0, 1e6, 1.0), 0.0, 100.0
    for later, speed, held in presses:
        now += later
        at = clock.time(now)
        clock = clock.changed(now, speed, held)
        assert clock.time(now) == at >= before
        assert SLOWEST <= clock.speed <= FASTEST
        before = at


def test_a_replay_shows_its_time_and_speed(run: recorded_run.RecordedRun) -> None:
    time = FakeClock()
    source = Replay(run, speed=2.0, monotonic=time)
    assert source.latest().wall_time == 100.0
    source.start()
    time.now += 3.0
    snapshot = source.latest()
    assert (snapshot.state, snapshot.wall_time) == ("replay", 106.0)
    assert snapshot.detail.endswith(":01:46 ×2")
    source.speed_up()
    time.now += 1.0
    assert source.latest().wall_time == 110.0
    source.toggle_pause()
    source.slow_down()
    time.now += 60.0
    assert source.latest().wall_time == 110.0
    assert source.latest().detail.endswith("×2, paused")
    source.toggle_pause()
    time.now += 60.0
    assert source.latest().detail.endswith(":02:20 ×2, at the end")


def test_a_view_is_what_the_coordinator_would_have_published(run: recorded_run.RecordedRun) -> None:
    seen = view_at(run, 105.0)
    assert [v.version for v in seen.versions] == [0]
    assert (seen.info.version, seen.info.open_tasks, seen.info.status) == (0, 2, "running")
    assert [(c.client_id, c.rows, c.task_id) for c in seen.clients] == [
        ("a", 7, "t1"),
        ("b", 5, "t2"),
    ]
    (worker,) = seen.workers  # its update of 110 took 8 s
    assert (worker.state, worker.client_id, worker.progress) == ("training", "a", 3 / 8)
    assert worker.tokens_per_s == 50.0

    seen = view_at(run, 116.0)
    assert (seen.info.version, seen.info.phase, seen.info.accepted) == (1, 1, 1)
    a, b = seen.clients
    assert (a.rows, a.issued, a.participation, a.last_loss, a.weight) == (3, 2, 1, 2.0, 1.0)
    assert (b.rows, b.base_version, b.staleness, b.issued) == (0, 1, 0, 1)  # its second attempt
    assert seen.workers[0].state == "waiting"

    seen = view_at(run, 140.0)
    assert (seen.info.status, seen.info.detail) == ("finished", "the plan is complete")
    assert (seen.info.accepted, seen.info.rejected, seen.info.open_tasks) == (2, 1, 0)
    assert [e.kind for e in seen.events] == ["issued", "version", "rejected", "finished"]
    assert [s.version for s in seen.samples] == [0, 1, 2]


def test_a_finished_run_is_shown_as_finished_before_its_last_samples(
    run: recorded_run.RecordedRun,
) -> None:
    late = run.samples[-1].model_copy(update={"at": 150.0})
    run = recorded_run.RecordedRun(**{**vars(run), "samples": (*run.samples[:-1], late)})
    assert run.ended_at == 150.0
    seen = view_at(run, 145.0)
    assert seen.info.status == "finished"
    assert [s.version for s in seen.samples] == [0, 1]


def test_a_worker_appears_with_its_first_task(run: recorded_run.RecordedRun) -> None:
    assert view_at(run, 101.0).workers == ()


def test_tables_without_changes_are_the_same_objects(run: recorded_run.RecordedRun) -> None:
    time = FakeClock()
    source = Replay(run, speed=1.0, monotonic=time)
    source.start()
    time.now += 10.5
    first = view(source)
    time.now += 3.0  # nothing has happened but time
    second = view(source)
    assert second.versions is first.versions and second.events is first.events
    time.now += 7.0  # an attempt and a rejection
    third = view(source)
    assert third.versions is first.versions and third.events is not first.events
    assert third.samples is second.samples and len(first.samples) < len(second.samples)


def test_a_recording_that_ends_in_the_middle_is_shown_as_stopped(
    run: recorded_run.RecordedRun,
) -> None:
    run = recorded_run.RecordedRun(**{**vars(run), "events": run.events[:-1]})
    assert view_at(run, 130.0).info.detail == "as recorded"
    assert view_at(run, run.ended_at).info.detail == "the recording ends here"


def test_plus_minus_and_space_control_the_replay(run: recorded_run.RecordedRun) -> None:
    time = FakeClock()

    async def script() -> None:
        app = ReplayApp(Replay(run, speed=4.0, monotonic=time))
        async with app.run_test(size=(100, 30)) as pilot:
            for key, said in (("plus", "×8"), ("minus", "×4"), ("space", "×4, paused")):
                await pilot.press(key)
                await wait_until(pilot, said, lambda said=said: top(app).endswith(said))
            time.now += 100.0
            await pilot.press("space")
            time.now += 100.0
            await wait_until(pilot, "the end", lambda: "at the end" in screen_text(app))

    asyncio.run(script())


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (("--replay", "nowhere"), 7),
        (("--speed", "3"), 2),
        (("--replay", "nowhere", "--run", "here"), 2),
        (("--replay", "nowhere", "--speed", "0"), 2),
    ],
)
def test_a_wrong_option_is_one_line(
    options: tuple[str, ...],
    code: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.argv", ["fccl", "tui", *options])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == code
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_screenshot_is_drawn_without_a_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = tmp_path / "it.svg"
    monkeypatch.setattr("sys.argv", ["picture", str(record(tmp_path / "r")), str(drawn)])
    screenshot.main()
    assert "mine" in drawn.read_text() and drawn.read_text().startswith("<svg")
