"""Summaries of an experiment's runs."""

from dataclasses import replace

import pytest

from simulation.experiments.document import table
from simulation.experiments.experiment import Experiment
from simulation.experiments.results import Figures, Run, steady_seconds, summarize
from simulation.grid.grid import Case
from simulation.records import Measurement

EXPERIMENT = Experiment(
    key="x",
    title="X",
    task="minilm",
    part="report",
    outcome="time",
    question="?",
    expected="!",
    baseline="slow",
    cases=[Case("slow", {}), Case("fast", {})],
)


def make_run(case: str, seed: int, loss: float, target_s: float | None) -> Run:
    figures = Figures(
        case=case,
        seed=seed,
        start_loss=1.0,
        loss=loss,
        accuracy=None,
        target_s=target_s,
        target_updates=None if target_s is None else 10,
        steady_s=None,
        seconds=100.0,
        versions=2,
        updates=10,
        tasks=15,
        clients=4,
        mb_up=1.0,
        wall_s=1.0,
    )
    return Run(figures, [])


def test_cases_are_compared_with_the_baseline_of_the_same_seed() -> None:
    runs = [make_run("slow", 0, 0.5, 80.0), make_run("fast", 0, 0.6, 20.0)]

    slow, fast = summarize(EXPERIMENT, runs)

    assert fast.speedup is not None and fast.speedup.mean == pytest.approx(4.0)
    assert fast.kept is not None and fast.kept.mean == pytest.approx(0.8)
    assert slow.kept is not None and slow.kept.mean == 1.0
    assert fast.tasks_per_update == 1.5


def test_a_case_that_does_not_reach_the_target_is_counted_and_has_no_time() -> None:
    runs = [make_run("slow", 0, 0.5, 80.0), make_run("fast", 0, 0.9, None)]

    fast = summarize(EXPERIMENT, runs)[1]

    assert (fast.reached, fast.seeds, fast.target_s, fast.speedup) == (0, 1, None, None)
    assert "| fast | 0 of 1 |" in table(EXPERIMENT, summarize(EXPERIMENT, runs))


def test_a_table_of_losses_has_no_columns_of_times() -> None:
    experiment = replace(EXPERIMENT, outcome="loss")
    text = table(experiment, summarize(experiment, [make_run("slow", 0, 0.5, None)]))

    assert text.splitlines()[-1] == "| slow | 1 | 0.500 | 100 |"


def test_a_single_lucky_version_is_not_steady() -> None:
    losses = [0.9, 0.3, 0.9, 0.5, 0.5, 0.5]
    measured = [Measurement(i, 10.0 * i, loss, {}, i, i, 0, 0) for i, loss in enumerate(losses)]

    assert steady_seconds(measured, 0.5) == 50.0
    assert steady_seconds(measured, 0.4) is None
