"""Running contribution of clients, from the summaries of versions."""

from __future__ import annotations

import pytest

from common.evaluation.contributions import (
    ALPHA,
    contribution_rows,
    contribution_table,
    running_contributions,
)
from common.protocol.versions import VersionSummary
from tests.support.tui.builders import update, version

OBJECTIVES = ("sft", "dpo")


def commit(number: int, phase: int = 0, **weights: float) -> VersionSummary:
    updates = (
        update(name, weight=weight, coefficient=weight / 2) for name, weight in weights.items()
    )
    return version(number, *updates, phase=phase)


def test_equal_weights_are_a_contribution_of_one() -> None:
    versions = [version(0), commit(1, a=0.5, b=0.5), commit(2, a=0.25, b=0.25, c=0.25, d=0.25)]
    assert running_contributions(versions) == pytest.approx({"a": 1, "b": 1, "c": 1, "d": 1})


def test_the_contribution_is_an_average_over_commits_in_which_the_client_took_part() -> None:
    versions = [commit(1, a=0.75, b=0.25), commit(2, b=0.4, c=0.6), commit(3, a=0.5, c=0.5)]
    found = running_contributions(versions)
    assert found["a"] == pytest.approx((1 - ALPHA) * 1.5 + ALPHA * 1.0)
    assert found["b"] == pytest.approx((1 - ALPHA) * 0.5 + ALPHA * 0.8)


def test_a_client_with_two_updates_in_a_buffer_counts_once_with_their_sum() -> None:
    twice = version(1, update("a", weight=0.25), update("a", weight=0.25), update("b", weight=0.5))
    assert running_contributions([twice]) == pytest.approx({"a": 1, "b": 1})


def test_an_update_that_a_robust_rule_has_left_out_contributes_nothing() -> None:
    dropped = update("b", weight=0.5, coefficient=0.5, left_out=True)
    versions = [version(1, update("a", weight=0.5, coefficient=0.5), dropped)]
    assert running_contributions(versions) == {"a": 1, "b": 0}
    assert [row.share for row in contribution_rows(versions, OBJECTIVES, "train")] == [1, 0]


def test_rows_say_who_contributed_how_much_to_what() -> None:
    versions = [commit(1, a=0.75, b=0.25), commit(2, phase=1, a=1.0)]
    a, b = contribution_rows(versions, OBJECTIVES, "cosine")
    assert (a.client_id, a.updates, a.samples, a.source) == ("a", 2, 20, "cosine")
    assert a.share == pytest.approx(0.875) and b.share == pytest.approx(0.125)
    assert [(p.objective, p.share) for p in a.phases] == [("sft", 0.75), ("dpo", 1.0)]
    assert [p.objective for p in b.phases] == ["sft"]


def test_the_table_has_a_column_for_each_phase_only_if_there_are_several() -> None:
    versions = [commit(1, a=0.75, b=0.25)]
    header, cells = contribution_table(contribution_rows(versions, OBJECTIVES, "train"))
    assert "of sft" not in header
    assert cells[0][:4] == ("a", "1.50", "75%", "1")
    later = [*versions, commit(2, phase=1, a=1.0)]
    header, cells = contribution_table(contribution_rows(later, OBJECTIVES, "train"))
    assert header[3:5] == ("of sft", "of dpo")
    assert [row[3:5] for row in cells] == [("75%", "100%"), ("25%", "-")]


def test_a_run_without_commits_has_no_rows() -> None:
    assert contribution_rows([version(0)], OBJECTIVES, "train") == ()
