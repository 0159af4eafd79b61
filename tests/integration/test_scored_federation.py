"""Federations with scored updates over real RabbitMQ and Redis: a killed coordinator goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.federations import check_applied_once, phase, plan, planned
from tests.support.servers import Server

pytestmark = [pytest.mark.servers, pytest.mark.slow]
VERSIONS = 4


def scored_plan(source: str) -> str:
    tables = (
        f'[aggregation]\ncontribution_source = "{source}"',
        "[evaluation]\nfederated = true\nevery = 1\nmax_rows = 8",
    )
    training = phase("sft", VERSIONS, "local_steps = 2")
    return plan(training, *tables, clients=3, rows=90, schedule="buffer_size = 2")


@pytest.mark.parametrize("source", ["server", "federated", "cosine"])
def test_a_killed_coordinator_goes_on_with_scores_and_evaluations(
    tmp_path: Path, model_cache: Path, rabbitmq: Server, redis_server: Server, source: str
) -> None:
    text = scored_plan(source)
    with planned(tmp_path, model_cache, rabbitmq.url, redis_server.url, text) as run:
        coordinator = run.coordinator()
        workers = [run.worker(), run.worker()]
        run.reaches(1)
        coordinator.kill()
        assert run.version() < VERSIONS
        resumed = run.coordinator("--resume")
        assert resumed.end() == 0, resumed.out + resumed.err
        assert [worker.end() for worker in workers] == [0, 0]
        check_applied_once(run)
        assert run.rows("SELECT task_id FROM evaluation WHERE state = 'open'") == []
        rounds = run.rows("SELECT version FROM evaluation_round WHERE closed_at IS NOT NULL")
        assert sorted(rounds) == [(version,) for version in range(VERSIONS + 1)]
        answered = run.rows(
            "SELECT version, COUNT(DISTINCT client_id) FROM evaluation"
            " WHERE state = 'accepted' AND candidate = '' GROUP BY version"
        )
        assert answered == [(version, 3) for version in range(VERSIONS + 1)]
        scored = run.rows("SELECT task_id, source FROM score ORDER BY task_id")
        accepted = run.rows("SELECT task_id FROM accepted ORDER BY task_id")
        assert {task for task, _ in scored} <= {task for (task,) in accepted}
        assert {name for _, name in scored} == {source}
        assert len(scored) >= len(accepted) - 2  # one buffer may have run out of time
