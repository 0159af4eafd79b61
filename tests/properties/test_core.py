"""Invariants of the coordinator's core in any order of events, crashes and restarts.

`make properties EXAMPLES=20000` looks longer; `Ledger` and `CoreRun` have the invariants.
"""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from common.config.config import PhaseConfig
from coordinator.core.events import EnrolmentRequested, HeartbeatsRead, WorkerSignal
from coordinator.core.state import OpenTask
from tests.properties.core_run import CoreRun
from tests.properties.federation import FederationMachine
from tests.support.virtual_federation import make_plan, make_update

EXAMPLES = int(os.environ.get("FCCL_PROPERTY_EXAMPLES", "600"))
UNLIMITED = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]


def test_the_invariants_hold_in_any_order_of_events() -> None:
    run_state_machine_as_test(
        FederationMachine,
        settings=settings(
            max_examples=40,
            stateful_step_count=25,
            derandomize=True,
            phases=[Phase.generate],  # shrinking takes minutes: `make properties` does that
            database=None,
            deadline=None,
            suppress_health_check=UNLIMITED,
        ),
    )


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_the_invariants_hold_in_many_more_orders() -> None:
    run_state_machine_as_test(
        FederationMachine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=60,
            deadline=None,
            print_blob=True,
            suppress_health_check=UNLIMITED,
        ),
    )


def test_an_update_of_a_client_that_has_no_rows_left_is_rejected() -> None:
    """Its weight would be that of no rows, and the mean loss of the version that of none."""
    phases = (PhaseConfig(objective="sft", versions=2), PhaseConfig(objective="dpo", versions=1))
    plan = replace(make_plan({}, concurrency=1, buffer_size=1), phases=phases)
    run = CoreRun(plan)
    run.feed(EnrolmentRequested("near", "near", {"sft": 60, "va": 60}, 2, 200))
    run.feed(HeartbeatsRead((WorkerSignal("near", False, None),)))
    (task,) = run.published
    assert isinstance(task, OpenTask)
    run.feed(EnrolmentRequested("near", "near", {"va": 60}, 2, 200))
    run.feed(make_update(task, "near"))
    assert (run.ledger.accepted, run.ledger.closed) == ({}, {task.task_id})
    run.close()
