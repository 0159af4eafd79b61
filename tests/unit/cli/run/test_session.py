"""Starts of one run: one creates it, others are refused or take it over, and none replaces it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from cli.console import Output
from cli.run import session
from cli.run.local_tasks import LocalTasks
from common.config.config import FederationConfig
from common.config.loader import parse
from common.errors import RunError
from common.protocol.tasks import BaseRef
from coordinator.storage import run as runs
from tests.support.coordinator_records import prepared_run


class InstantTasks(LocalTasks):
    """Tasks of a run that needs no model; `during` is called while it is prepared."""

    def __init__(self) -> None:
        super().__init__(lambda *_: None, lambda _: None)
        self.during: Callable[[], object] = lambda: None

    def prepare_run(self, config: FederationConfig) -> Path:
        def prepare(directory: Path) -> runs.PreparedRun:
            self.during()
            return prepared_run(directory)

        runs.create_run(config, prepare, 1.0)
        return Path("base")

    def find_base_model(self, base: BaseRef) -> Path:
        return Path("base")


@pytest.fixture
def config(tmp_path: Path) -> FederationConfig:
    return parse({"run": {"name": "r", "dir": str(tmp_path)}, "samples": {"prompts": 0}}, "test")


def start(config: FederationConfig, mode: str, tasks: InstantTasks, stack: ExitStack) -> str:
    """Start and serve a run until the stack is closed; return its id."""
    opened = session.opened_run(config, mode, tasks, Output(plain=True), lambda old: None)
    run = stack.enter_context(opened)
    stack.callback(run.journal.close)
    return run.run_id


@pytest.mark.parametrize("mode", ["start", "new", "continue"])
def test_a_start_beside_a_preparation_is_refused_and_the_first_keeps_its_run(
    config: FederationConfig, mode: str
) -> None:
    first = InstantTasks()
    with ExitStack() as stack:

        def second_start() -> None:
            with pytest.raises(RunError, match="another start is at work"):
                start(config, mode, InstantTasks(), stack)

        first.during = second_start
        run_id = start(config, "start", first, stack)
    with ExitStack() as stack:
        assert start(config, "resume", InstantTasks(), stack) == run_id
    assert [path.name for path in config.run.path.parent.iterdir()] == ["r"]


def test_a_run_that_is_served_can_be_taken_over_but_not_replaced(config: FederationConfig) -> None:
    with ExitStack() as stack:
        run_id = start(config, "start", InstantTasks(), stack)
        with pytest.raises(RunError, match="is in use"):
            start(config, "new", InstantTasks(), stack)
        assert start(config, "resume", InstantTasks(), stack) == run_id
    with ExitStack() as stack:
        assert start(config, "new", InstantTasks(), stack) != run_id


def test_what_a_killed_start_left_is_removed_by_the_next_one(config: FederationConfig) -> None:
    left = config.run.path.with_name(".r.partial-killed")
    (left / "clients").mkdir(parents=True)
    with ExitStack() as stack:
        start(config, "start", InstantTasks(), stack)
    assert [path.name for path in config.run.path.parent.iterdir()] == ["r"]


def test_a_preparation_does_not_replace_a_run_that_was_made_meanwhile(
    config: FederationConfig,
) -> None:
    tasks = InstantTasks()
    tasks.during = lambda: (config.run.path / "versions").mkdir(parents=True)
    with pytest.raises(RunError, match="another start has made"):
        tasks.prepare_run(config)
    assert [path.name for path in config.run.path.parent.iterdir()] == ["r"]
