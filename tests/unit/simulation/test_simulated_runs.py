"""Whole runs in virtual time, of the analytic objective."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.errors import ConfigError
from common.protocol.kinds import EventKind
from evaluation.verification.verify import verify
from simulation.driver.clock import EPOCH
from simulation.records import read_measurements, read_summary
from simulation.run import check_simulation
from tests.support.simulations import analytic_config, simulated


def test_the_same_settings_give_the_same_versions_to_the_bit(tmp_path: Path) -> None:
    settings = {"speed_sigma": 1.0, "dropout": 0.2, "availability": 0.7, "available_s": 20.0}
    runs = [
        simulated(analytic_config(tmp_path, name, simulation=settings))[0] for name in ("a", "b")
    ]
    assert [v.sha256 for v in runs[0].versions] == [v.sha256 for v in runs[1].versions]
    assert [v.at for v in runs[0].versions] == [v.at for v in runs[1].versions]
    assert read_measurements(runs[0].directory) == read_measurements(runs[1].directory)
    other = analytic_config(tmp_path, "c", simulation=settings, run={"seed": 1})
    assert simulated(other)[0].versions[-1].sha256 != runs[0].versions[-1].sha256


def test_time_follows_from_speed_network_and_steps(tmp_path: Path) -> None:
    # Two steps of 3 s, and a quarter of a second for the task and for its answer.
    config = analytic_config(
        tmp_path,
        data={"clients": 1},
        phase={"versions": 2},
        schedule={"concurrency": 1, "buffer_size": 1},
        simulation={"step_s": 3.0, "latency_s": 0.25},
    )
    run, summary = simulated(config)
    assert [each.at - EPOCH for each in run.versions] == pytest.approx([0.0, 6.5, 13.0])
    assert summary.seconds == pytest.approx(13.0)
    assert run.updates[0].stats.train_seconds == 6.0


def test_every_version_can_be_recomputed_from_kept_updates(tmp_path: Path) -> None:
    run, _ = simulated(analytic_config(tmp_path, run={"keep_updates": True}))
    found = verify(run.directory)
    assert found.right and found.complete


def test_a_slow_client_keeps_its_lease_and_a_dropped_one_loses_it(tmp_path: Path) -> None:
    # client_0 needs 40 s, four leases; client_1 is switched off in its first task.
    trace = tmp_path / "trace.csv"
    trace.write_text("client,speed,gone_at\nclient_0,0.05,\nclient_1,1,1\nclient_2,1,\n")
    config = analytic_config(
        tmp_path,
        data={"clients": 3},
        phase={"versions": 14},
        schedule={"concurrency": 3, "lease_s": 10.0, "max_staleness": 1000},
        simulation={"trace": str(trace)},
    )
    run, summary = simulated(config)
    assert summary.complete
    assert max(attempt.attempt for attempt in run.attempts) == 1
    lost = [event.text for event in run.events if event.kind == EventKind.LEASE]
    assert len(lost) == 1 and "client_1 waits for site client_1, which is silent" in lost[0]
    assert any(update.client_id == "client_0" for update in run.updates)


def test_a_task_whose_answer_is_lost_is_issued_again(tmp_path: Path) -> None:
    run, summary = simulated(analytic_config(tmp_path, simulation={"dropout": 0.5}))
    assert summary.lost > 0 and summary.complete
    repeated = {each.task_id for each in run.attempts if each.attempt == 2}
    assert repeated & {update.task_id for update in run.updates}


def test_a_client_works_through_a_cut_and_sends_afterwards(tmp_path: Path) -> None:
    config = analytic_config(
        tmp_path,
        data={"clients": 1},
        phase={"versions": 2},
        schedule={"concurrency": 1, "buffer_size": 1},
        simulation={"cuts": [[3.0, 100.0]], "latency_s": 0.5},
    )
    run, _ = simulated(config)
    # The answer would have arrived at 3 s. A second after the cut the coordinator sees the client.
    assert [each.at - EPOCH for each in run.versions] == pytest.approx([0.0, 103.0, 107.0])


def test_a_simulation_stops_at_its_target_loss(tmp_path: Path) -> None:
    config = analytic_config(
        tmp_path,
        phase={"versions": 50, "lr_schedule": "constant"},
        simulation={"target_loss": 0.4, "heterogeneity": 0.1},
    )
    run, summary = simulated(config)
    assert summary.complete and "target" in summary.reason
    assert len(run.versions) < 51
    reached = [each for each in read_measurements(run.directory) if each.loss <= 0.4]
    assert summary.target_s == reached[0].seconds
    assert read_summary(run.directory) == summary


def test_a_simulation_stops_at_its_longest_time(tmp_path: Path) -> None:
    _, summary = simulated(analytic_config(tmp_path, simulation={"max_s": 2.5}))
    assert not summary.complete and "max_s" in summary.reason
    assert summary.seconds <= 2.5


@pytest.mark.parametrize("source", ["server", "cosine"])
def test_scores_that_clients_cannot_inflate_are_journaled(tmp_path: Path, source: str) -> None:
    run, _ = simulated(analytic_config(tmp_path, aggregation={"contribution_source": source}))
    assert {score.task_id for score in run.scores} >= {update.task_id for update in run.updates}


def test_sign_flipping_clients_move_away_from_the_optimum(tmp_path: Path) -> None:
    loss = {}
    for name, faults in (("good", {}), ("bad", {"faults": ["sign-flip"], "faulty": 0.5})):
        config = analytic_config(tmp_path, name, phase={"versions": 20}, simulation=faults)
        loss[name] = simulated(config)[1].final_loss or 0.0
    assert loss["bad"] > 2 * loss["good"]


@pytest.mark.parametrize(
    ("sections", "what"),
    [
        ({"data": {"clients": 0}}, "data.clients = 0"),
        ({"aggregation": {"contribution_source": "federated"}}, "no rows to evaluate on"),
        ({"simulation": {"faults": ["labels-random"], "faulty": 0.5}}, "no labels"),
        ({"schedule": {"min_clients": 7}}, "min_clients"),
        ({"simulation": {"trace": "missing.csv"}}, "missing.csv cannot be read"),
    ],
)
def test_what_cannot_be_simulated_is_refused(
    tmp_path: Path, sections: dict[str, dict[str, object]], what: str
) -> None:
    with pytest.raises(ConfigError, match=what) as caught:
        check_simulation(analytic_config(tmp_path, **sections))
    assert "\n" not in str(caught.value) and caught.value.remedy
