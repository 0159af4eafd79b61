"""Forgetting and transfer over a stream of tasks, with numbers that can be checked by hand."""

from __future__ import annotations

import pytest

from worker.incremental.report.stream import (
    BEFORE,
    OWN,
    TaskMeasurement,
    TaskSpan,
    performance_over_time,
    stream_figures,
)


def measures(
    rows: dict[tuple[int, str], dict[str, float]], *, loss: bool = False
) -> list[TaskMeasurement]:
    """From `(batch, task learned): {task measured: performance}`."""
    return [
        TaskMeasurement(batch, learned, task, value if loss else 1.0, None if loss else value, 10)
        for (batch, learned), row in rows.items()
        for task, value in row.items()
    ]


THREE: dict[tuple[int, str], dict[str, float]] = {
    (BEFORE, OWN): {OWN: 0.9, "a": 0.5, "b": 0.4},
    (1, "a"): {OWN: 0.95, "a": 0.6},  # only the last batch of a task counts
    (2, "a"): {OWN: 0.8, "a": 0.9, "b": 0.6},
    (3, "b"): {OWN: 0.85, "a": 0.7, "b": 0.8},
}


def test_figures_follow_the_published_definitions() -> None:
    found = stream_figures(measures(THREE))
    assert found.metric == "accuracy"
    assert found.tasks == (TaskSpan(OWN, 0, 0), TaskSpan("a", 1, 2), TaskSpan("b", 3, 3))
    assert found.matrix == ((0.9, 0.5, 0.4), (0.8, 0.9, 0.6), (0.85, 0.7, 0.8))
    # Forgotten: own data max(0.9, 0.8) − 0.85, a max(0.5, 0.9) − 0.7; the last task does not count.
    assert found.forgotten == (pytest.approx(0.05), pytest.approx(0.2), None)
    assert found.forgetting == pytest.approx(0.125)
    assert found.transferred == (pytest.approx(-0.05), pytest.approx(-0.2), None)
    assert found.backward_transfer == pytest.approx(-0.125)
    assert found.forward_transfer == pytest.approx(0.6 - 0.4)


def test_forgetting_is_relative_to_the_best_and_transfer_to_when_a_task_was_learned() -> None:
    # The own data rise by learning a and fall again by b, to where they were.
    found = stream_figures(
        measures({(0, OWN): {OWN: 0.8}, (1, "a"): {OWN: 0.9, "a": 0.9}, (2, "b"): {OWN: 0.8}})
    )
    assert found.forgotten[0] == pytest.approx(0.1)
    assert found.transferred[0] == pytest.approx(0.0)


def test_with_losses_positive_forgetting_is_bad_and_positive_transfer_good() -> None:
    rows = {(0, OWN): {OWN: 2.0}, (1, "a"): {OWN: 1.5, "a": 1.0}, (2, "b"): {OWN: 1.75, "a": 0.5}}
    found = stream_figures(measures(rows, loss=True))
    assert found.metric == "loss"
    assert found.forgotten == (pytest.approx(0.25), pytest.approx(-0.5), None)
    assert found.transferred == (pytest.approx(0.25), pytest.approx(0.5), None)
    assert found.backward_transfer == pytest.approx(0.375)


def test_one_measurement_without_accuracy_makes_loss_the_metric() -> None:
    rows = [TaskMeasurement(1, "a", "a", 0.7, 0.5, 4), TaskMeasurement(2, "a", "a", 0.6, None, 4)]
    assert stream_figures(rows).metric == "loss"
    assert performance_over_time(rows) == {"a": [(1, 0.7), (2, 0.6)]}


def test_a_repeated_task_takes_the_place_where_it_was_last_learned() -> None:
    rows = {(1, "a"): {"a": 0.6}, (2, "b"): {"a": 0.5, "b": 0.9}, (3, "a"): {"a": 0.8, "b": 0.7}}
    found = stream_figures(measures(rows))
    assert found.tasks == (TaskSpan("b", 2, 2), TaskSpan("a", 1, 3))
    assert found.backward_transfer == pytest.approx(-0.2), "of b alone: a gained by its own items"


def test_missing_measurements_are_left_out_of_the_means() -> None:
    found = stream_figures(
        measures({(1, "a"): {OWN: 0.9, "a": 0.9}, (2, "b"): {OWN: 0.7, "b": 0.9}})
    )
    assert found.matrix == ((None, None, None), (0.9, 0.9, None), (0.7, None, 0.9))
    assert (found.forgetting, found.backward_transfer) == (pytest.approx(0.2), None)
    assert found.forward_transfer is None


@pytest.mark.parametrize("rows", [{}, {(1, "a"): {"a": 0.9}}])
def test_without_a_second_task_there_is_no_forgetting(
    rows: dict[tuple[int, str], dict[str, float]],
) -> None:
    found = stream_figures(measures(rows))
    assert (found.forgetting, found.backward_transfer, found.forward_transfer) == (None,) * 3
