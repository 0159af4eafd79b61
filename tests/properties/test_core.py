"""Invariants of the coordinator's core in any order of events, crashes and restarts.

`make properties EXAMPLES=20000` looks longer; `Ledger` and `CoreRun` have the invariants.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.properties.federation import FederationMachine

EXAMPLES = int(os.environ.get("FCCL_PROPERTY_EXAMPLES", "1500"))
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
            stateful_step_count=80,
            deadline=None,
            print_blob=True,
            suppress_health_check=UNLIMITED,
        ),
    )
