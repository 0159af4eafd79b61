"""With `aggregation.cache_updates` the newest update of each client stays until it is replaced."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.protocol import codec
from common.run_directory.update_journal import UpdateJournal, read_update_journal
from coordinator.storage.journal import Journal
from coordinator.storage.kept_updates import KeptUpdates
from evaluation.verification.verify import verify
from tests.support.coordinator_records import START
from tests.support.polled_federation import PolledFederation, crash_at, delta
from tests.support.witnessed_runs import WitnessedRun

CACHE = {"aggregation": {"cache_updates": True, "clip": 100.0}, "versions": (4,)}


def newest(journal: UpdateJournal) -> dict[str, str]:
    """Return the file of the newest applied update of each client."""
    applied = [update for update in journal.updates if update.version is not None]
    return {update.client_id: f"{update.task_id}.{update.attempt}" for update in applied}


def files(directory: Path) -> set[str]:
    return {path.name for path in (directory / "updates").iterdir()}


def test_a_version_is_the_cached_mean_and_what_has_changed_since(
    tmp_path: Path, small_chunks: None
) -> None:
    federation = PolledFederation(tmp_path, keep_updates=True, **CACHE)
    assert federation.serve().complete
    journal = read_update_journal(federation.directory)
    theta, cached = START["a"][0].astype(np.float64), dict[str, float]()
    for number in range(1, 5):
        buffer = [(u.client_id, u.task_id) for u in journal.versions[number].updates]
        values = {task: float(delta(task)["a"][0]) for _, task in buffer}
        mean = np.mean(list(cached.values())) if cached else 0.0
        theta += mean + np.mean([values[task] - cached.get(c, mean) for c, task in buffer])
        cached |= {client: values[task] for client, task in buffer}
    assert len(cached) == 3
    opened = federation.open()
    assert opened.versions.read(4)["a"][0] == pytest.approx(theta, rel=1e-6)
    opened.journal.close()
    found = verify(federation.directory)
    assert found.right and found.complete


def test_superseded_updates_are_removed_unless_all_are_kept(
    tmp_path: Path, small_chunks: None
) -> None:
    federations = {}
    for kept in (True, False):
        federation = PolledFederation(tmp_path / str(kept), keep_updates=kept, **CACHE)
        assert federation.serve().complete
        federations[kept] = federation.directory
    journals = {kept: read_update_journal(path) for kept, path in federations.items()}
    digests = [[v.sha256 for v in journals[kept].versions.values()] for kept in (True, False)]
    assert digests[0] == digests[1]
    assert files(federations[False]) == set(newest(journals[False]).values())
    assert len(files(federations[True])) == 8
    found = verify(federations[False])
    assert found.right and not found.complete


POINTS: dict[str, tuple[Any, str, bool]] = {
    "after the transaction": (Journal, "write", True),
    "before the new files are moved": (KeptUpdates, "put", False),
    "after old files are removed": (KeptUpdates, "drop", True),
}


@pytest.mark.parametrize("point", POINTS)
def test_the_cache_survives_crashes(
    tmp_path: Path, small_chunks: None, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    kind, method, after = POINTS[point]
    federation = PolledFederation(tmp_path, keep_updates=False, **CACHE)
    frames = dict[str, bytes]()
    answer = federation.answer
    federation.answer = lambda task: frames.setdefault(codec.digest(task), answer(task))
    crash_at(monkeypatch, kind, method, after=after, calls={1, 3, 4, 9})
    outcome, crashes = federation.serve_through_crashes()
    monkeypatch.undo()
    assert outcome.complete and crashes >= 2
    journal = read_update_journal(federation.directory)
    assert files(federation.directory) == set(newest(journal).values())
    assert not list((federation.directory / "spool").iterdir())
    (federation.directory / "updates").rename(federation.directory / "cached")
    (federation.directory / "updates").mkdir()
    sent = {codec.digest(frame): frame for frame in frames.values()}
    for update in journal.updates:  # as if all had been kept
        name = f"{update.task_id}.{update.attempt}"
        (federation.directory / "updates" / name).write_bytes(sent[update.sha256])
    run = WitnessedRun(federation.directory, tmp_path)
    run.execute(
        "INSERT OR REPLACE INTO kept_update SELECT task_id, task_id || '.' || attempt FROM accepted"
    )
    found = verify(federation.directory)
    assert found.right and found.complete, [each.problems for each in found.versions]
