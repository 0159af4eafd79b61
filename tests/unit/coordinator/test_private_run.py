"""A run with differential privacy over the embedded broker and store, from config to `verify`."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from common.privacy import NOT_COVERED, epsilon
from common.protocol.tasks import TrainTask
from common.protocol.wire import unpack
from common.run_directory.recorded_run import read_run
from common.store import view
from coordinator.core.privacy import spent_clients
from coordinator.storage.recovery import recover
from evaluation.verification.verify import verify
from tests.support.polled_federation import Crash, PolledFederation, answer
from tests.support.witnessed_runs import small_chunks
from tui.data.recorded_views import view_at
from tui.status_panel import status_panel
from worker.review.plan_text import plan_lines

PRIVACY = {"clip_norm": 0.01, "noise_multiplier": 2.0, "max_versions": 2}


def federation(directory: Path, **settings: Any) -> PolledFederation:
    return PolledFederation(
        directory,
        **{
            "aggregation": {"contribution_mode": "uniform"},
            "privacy": PRIVACY,
            "keep_updates": True,
            "versions": (3,),
            **settings,
        },
    )


def rows(run: PolledFederation, query: str) -> list[Any]:
    with closing(sqlite3.connect(run.directory / "run.db")) as db:
        return db.execute(query).fetchall()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> PolledFederation:
    run = federation(tmp_path_factory.mktemp("private"))
    with small_chunks():
        assert run.serve().complete
    return run


def test_every_version_is_recomputed_to_the_bit_with_its_noise(finished: PolledFederation) -> None:
    found = verify(finished.directory)
    assert found.right and found.complete


def test_another_seed_makes_another_version(finished: PolledFederation, tmp_path: Path) -> None:
    seeds = [seed for (seed,) in rows(finished, "SELECT seed FROM noise_seed")]
    assert len(set(seeds)) == 3 and {len(seed) for seed in seeds} == {32}
    copy = sqlite3.connect(tmp_path / "run.db")
    with closing(sqlite3.connect(finished.directory / "run.db")) as db, closing(copy):
        db.backup(copy)
        copy.execute("UPDATE noise_seed SET seed = zeroblob(32) WHERE version = 2")
        copy.commit()
    for name in ("federation.toml", "versions", "updates", "spool"):
        (tmp_path / name).symlink_to(finished.directory / name)
    wrong = [each.version for each in verify(tmp_path).versions if each.problems]
    assert wrong == [2]


def test_seeds_are_published_nowhere(finished: PolledFederation) -> None:
    (seed,) = rows(finished, "SELECT seed FROM noise_seed WHERE version = 1")[0]
    client = finished.redis.client
    content = b"".join(
        client.dump(key) for key in client.keys("*") if client.type(key) != b"stream"
    )
    assert seed not in content and seed.hex().encode() not in content


def test_without_kept_updates_seeds_are_forgotten(tmp_path: Path) -> None:
    run = federation(tmp_path, keep_updates=False, versions=(1,))
    with small_chunks():
        assert run.serve().complete
    assert rows(run, "SELECT * FROM noise_seed") == []
    found = verify(run.directory)
    assert found.right and not found.complete


def test_updates_are_clipped_and_weighed_equally(finished: PolledFederation) -> None:
    for summary in read_run(finished.directory).versions[1:]:
        for update in summary.updates:
            assert update.weight == 0.5 and update.clip < 1


def test_tasks_and_the_plan_of_sites_name_the_norm(tmp_path: Path) -> None:
    run, norms = federation(tmp_path, versions=(1,)), list[float | None]()

    def note(task: bytes) -> bytes:
        norms.append(unpack(TrainTask, task)[0].clip_norm)
        return answer(task)

    run.answer = note
    with small_chunks():
        run.serve()
    assert set(norms) == {0.01}
    plan = run.store.get_plan(run.topology.run)
    assert plan is not None and plan.privacy is not None
    assert plan.privacy.max_versions == 2
    assert "norm of 0.01, at most 2 times" in " ".join(" ".join(plan_lines(plan)).split())


def test_status_shows_what_was_spent_live_and_from_the_run_directory(
    finished: PolledFederation,
) -> None:
    live = view.read(finished.store, "r")
    recorded = view_at(read_run(finished.directory), 1e9)
    assert live.info.privacy == recorded.info.privacy
    spent = live.info.privacy
    assert spent is not None and spent.versions == 2
    assert spent.epsilon == pytest.approx(epsilon(2.0, 2, 1e-5))
    console = Console(file=StringIO(), width=150)
    console.print(status_panel(live, 0.0))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "ε ≤ 2.94 now, 2.94 at the end" in shown and NOT_COVERED in shown
    assert json.loads(json.dumps(live.fields()))["info"]["privacy"]["max_versions"] == 2


def test_a_restart_forgets_no_participation_and_a_spent_run_stops(tmp_path: Path) -> None:
    run = federation(tmp_path, versions=(9,), privacy=PRIVACY | {"max_versions": 1})

    def crash_after_a_version() -> None:
        if any(event.kind == "version" for event in run.events):
            run.on_turn = lambda: None
            raise Crash

    run.on_turn = crash_after_a_version
    with small_chunks():
        outcome, crashes = run.serve_through_crashes()
    assert crashes == 1
    assert (outcome.complete, outcome.failed, outcome.version) == (False, False, 2)
    assert "the privacy of every client is spent: each is in 1 version" in outcome.reason
    assert rows(run, "SELECT client_id, participation FROM client ORDER BY 1") == [
        ("client_0", 1),
        ("client_1", 1),
        ("client_2", 1),
    ]
    opened = run.open()
    state = recover(opened.plan, opened.journal, 0.0, 0.0)
    assert len(spent_clients(opened.plan, state)) == 3
    opened.journal.close()
    with small_chunks():
        assert run.serve() == outcome  # a resume changes nothing
    assert verify(run.directory).right
