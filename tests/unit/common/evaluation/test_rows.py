"""Evaluations at the sites as rows for viewers."""

from __future__ import annotations

import math

import pytest

from common.evaluation.rows import EvaluationRow, evaluation_rows
from common.run_directory.records import EvaluationRecord
from tests.support.evaluation_records import evaluation, round_of

KINDS = ("sft", "sft")


def rows(*records: EvaluationRecord) -> tuple[EvaluationRow, ...]:
    return evaluation_rows(records, (), KINDS)


def test_pooled_figures_weigh_clients_by_their_rows_and_name_the_worst() -> None:
    (row,) = rows(evaluation("a", 0, 2.0, rows=30), evaluation("b", 0, 4.0, rows=10))
    assert row.value == pytest.approx(2.5)
    assert (row.rows, row.worst, row.worst_value) == (40, "b", pytest.approx(4.0))
    assert (row.range, row.deviation) == (pytest.approx(2.0), pytest.approx(1.0))
    assert row.client_value("a") == pytest.approx(2.0)
    assert row.client_value("c") is None
    assert row.seconds == 3.0


def test_the_best_version_of_each_phase_is_marked() -> None:
    found = rows(
        *(evaluation("a", version, 5.0 - version) for version in (0, 1, 2)),
        *(evaluation("a", version, float(version), phase=1) for version in (2, 3)),
    )
    assert [(r.phase, r.version, r.best) for r in found] == [
        (0, 0, False),
        (0, 1, False),
        (0, 2, True),
        (1, 2, True),
        (1, 3, False),
    ]


def test_clients_that_took_part_and_did_not_answer_are_missing() -> None:
    due = [round_of(0, "a", "b"), round_of(2, "a", "b", "c", closed_at=None)]
    first, second = evaluation_rows([evaluation("a", 0, 2.0)], due, KINDS)
    assert (first.missing, first.open, first.value) == (("b",), False, pytest.approx(2.0))
    assert (second.missing, second.open, second.value) == (("a", "b", "c"), True, None)
    assert second.at == 100.0


def test_rows_survive_json_also_of_a_model_that_diverged() -> None:
    (row,) = rows(evaluation("a", 3, 1000.0))
    assert "perplexity" not in row.values and math.isclose(row.value or 0, 1000.0)
    assert EvaluationRow.model_validate_json(row.model_dump_json()) == row


def test_a_client_without_rows_does_not_count() -> None:
    (row,) = rows(evaluation("a", 0, 2.0), evaluation("b", 0, 0.0, rows=0))
    assert row.worst == "a" and row.client_value("b") is None
