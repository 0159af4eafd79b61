"""Evaluation of a version by the sites of a running federation, asked for by `fccl evaluate`.

The coordinator gets the command `evaluate` and issues the tasks; the answers are read from the
run's journal.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cli.control.control import await_reply
from cli.options import find_config
from common.config import loader
from common.errors import FcclError, RunError, StoreError
from common.protocol import commands
from common.run_directory.recorded_run import RecordedRun, read_run
from common.run_directory.records import RoundRecord
from common.store import view
from common.store.store import Store, connect

POLL_S = 0.5
GRACE_S = 30.0  # after the deadline of the evaluations, for the coordinator to give them up

ProgressCallback = Callable[[str, float], None]


@dataclass(frozen=True)
class SiteAnswers:
    """The run after its sites were asked, and what came of that."""

    run: RecordedRun
    refused: str = ""  # why the sites were not asked, or the answers were not awaited
    version: int | None = None  # the version that they have evaluated

    @property
    def asked(self) -> bool:
        return not self.refused


def ask_sites(
    run: RecordedRun, version: int | None, config_path: Path | None, on_progress: ProgressCallback
) -> SiteAnswers:
    """Let the clients that are live evaluate a version, and wait for their answers.

    Args:
        version: None for the newest.
        config_path: Configuration with the address of the store, as `--config` names it.

    Raises:
        ConfigError: The configuration cannot be used.
    """
    config = loader.load(find_config(config_path))
    try:
        store = connect(config.store.url, ca=config.store.ca)
        _check_served(store, run)
        opened = _open_round(run, version) or _request(store, run, version)
        return _wait(store, run, opened, on_progress)
    except (RunError, StoreError) as error:
        return SiteAnswers(run, _reason(error))


def _check_served(store: Store, run: RecordedRun) -> None:
    """Raise `RunError` unless a coordinator serves the run."""
    name = run.config.run.name
    if store.get_run(name) != run.run_id:
        raise RunError(f"no coordinator serves this run at {store.where}")
    status = view.read(store, name).info.status
    if status in view.ENDED_STATUSES:
        raise RunError(f"no coordinator serves this run: it is {status}")


def _request(store: Store, run: RecordedRun, version: int | None) -> RoundRecord:
    """Let the coordinator open a round, and return it.

    Raises:
        RunError: The coordinator refuses, or does not answer.
    """
    before = {_key(each) for each in run.rounds}
    target = "" if version is None else str(version)
    try:
        await_reply(store, run.run_id, commands.send(store, run.run_id, "evaluate", target))
    except RunError:
        # The version may have become due by itself in the meantime.
        if (opened := _open_round(read_run(run.directory), version)) is not None:
            return opened
        raise
    after = read_run(run.directory).rounds
    opened = next((each for each in reversed(after) if _key(each) not in before), None)
    if opened is None:
        raise RunError("the coordinator has recorded no evaluation", "see `fccl status`")
    return opened


def _wait(
    store: Store, run: RecordedRun, opened: RoundRecord, on_progress: ProgressCallback
) -> SiteAnswers:
    """Wait until a round has ended."""
    deadline = time.monotonic() + run.config.evaluation.deadline_s + GRACE_S
    while time.monotonic() < deadline:
        run = read_run(run.directory)
        current = next((each for each in run.rounds if _key(each) == _key(opened)), opened)
        answered = sum(
            (each.version, each.phase) == (opened.version, opened.phase) and each.at >= opened.at
            for each in run.evaluations
        )
        expected = max(1, len(current.expected))
        text = f"version {opened.version}: {answered} of {expected} clients have answered"
        on_progress(text, min(1.0, answered / expected))
        if current.closed_at is not None:
            return SiteAnswers(run, version=opened.version)
        _check_served(store, run)
        time.sleep(POLL_S)
    return SiteAnswers(run, f"the evaluation of version {opened.version} has not ended in time")


def _open_round(run: RecordedRun, version: int | None) -> RoundRecord | None:
    """Return the newest round of a version, or of any, that has not ended."""
    rounds = (each for each in reversed(run.rounds) if each.closed_at is None)
    return next((each for each in rounds if version in (None, each.version)), None)


def _key(opened: RoundRecord) -> tuple[int, int, float]:
    return opened.version, opened.phase, opened.at


def _reason(error: FcclError) -> str:
    return f"{error.what} ({error.remedy})" if error.remedy else error.what
