"""Tests of metrics: they follow from scores by arithmetic that a reader can do by hand."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from common.errors import ModelError
from common.evaluation.metric_info import MAIN_METRIC, METRICS
from common.protocol.evaluations import EvalResult
from learning.evaluation.metrics import EvalMetrics, client_spread, make_metrics, wilson
from learning.evaluation.row_sums import class_sums, rating_sums, text_sums
from tests.support.metrics import class_metrics, preference_metrics, text_metrics


def test_text_metrics_are_over_tokens_and_bytes_not_over_rows() -> None:
    # 8 tokens cost 2 + 6 nats: one nat each; 4 bytes hold 8 nats.
    found = text_metrics([2.0, 6.0], [4, 4], [1, 3])
    assert found.rows == 2
    assert found.values["nats_per_token"] == 1.0
    assert found.values["perplexity"] == pytest.approx(math.e)
    assert found.values["bits_per_byte"] == pytest.approx(8 / math.log(2) / 4)
    assert (found.values["tokens"], found.values["bytes"]) == (8, 4)


def test_a_perplexity_beyond_the_float_range_is_infinite() -> None:
    assert text_metrics([5000.0], [1], [1]).values["perplexity"] == math.inf


def test_preferences_are_counted_by_sum_by_token_and_against_the_reference() -> None:
    found = preference_metrics(
        # The second chosen answer is less likely as a whole, but likelier per token.
        policy=[(-4.0, -6.0), (-8.0, -6.0), (-3.0, -3.0)],
        reference=[(-5.0, -5.0), (-9.0, -6.0), (-2.0, -2.0)],
        lengths=[(2, 2), (8, 2), (1, 1)],
        beta=0.5,
    )
    assert found.rows == 3
    assert found.values["accuracy"] == pytest.approx((1 + 0 + 0.5) / 3)
    assert found.values["accuracy_per_token"] == pytest.approx((1 + 1 + 0.5) / 3)
    # Rewards, chosen minus rejected: 0.5·(1 − −1), 0.5·(1 − 0), 0.5·(−1 − −1).
    assert found.values["reward_accuracy"] == pytest.approx((1 + 1 + 0.5) / 3)
    assert found.values["reward_margin"] == pytest.approx((1.0 + 0.5 + 0.0) / 3)


def test_a_model_that_is_its_own_reference_is_right_as_often_as_a_coin() -> None:
    pairs = [(-1.0, -2.0), (-3.0, -1.0)]
    found = preference_metrics(pairs, pairs, [(1, 1), (1, 1)], 0.1)
    assert (found.values["reward_accuracy"], found.values["reward_margin"]) == (0.5, 0.0)
    assert found.values["accuracy"] == 0.5


def test_classes_are_counted_by_true_class_and_by_prediction() -> None:
    found = class_metrics([0.5, 1.0, 1.5, 1.0], predicted=[0, 1, 1, 1], true=[0, 0, 1, 1], count=3)
    assert found.values["loss"] == 1.0
    assert found.values["accuracy"] == 0.75
    assert found.values["macro_f1"] == pytest.approx((2 / 3 + 4 / 5) / 2)
    assert found.confusion == ((1, 1, 0), (0, 2, 0), (0, 0, 0))


def test_a_class_counts_for_macro_f1_where_a_text_has_it() -> None:
    # Class 0: 2 of 3 found, none wrongly: F1 = 4/5. Class 1: found, one other too: F1 = 2/3.
    found = class_metrics([1.0] * 4, predicted=[0, 0, 1, 1], true=[0, 0, 0, 1], count=3)
    assert found.values["macro_f1"] == pytest.approx((4 / 5 + 2 / 3) / 2)
    missed = class_metrics([1.0] * 2, predicted=[0, 0], true=[0, 1], count=2)
    assert missed.values["macro_f1"] == pytest.approx((2 / 3) / 2)
    guessed = class_metrics([1.0] * 2, predicted=[0, 2], true=[0, 0], count=3)
    assert guessed.values["macro_f1"] == pytest.approx(2 / 3)


def test_ratings_are_counted_by_the_sign_of_their_reward() -> None:
    sums = rating_sums([2.0, -1.0, -0.5, 0.0], [True, True, False, False], [0.1] * 4)
    found = make_metrics("kto", sums).values
    assert found["reward_accuracy"] == (1 + 0 + 1 + 0.5) / 4
    assert (found["reward_good"], found["reward_bad"]) == (0.5, -0.25)
    assert (found["reward_margin"], found["loss"]) == (0.75, pytest.approx(0.1))


def test_the_confusion_matrix_of_many_classes_is_not_sent() -> None:
    found = class_metrics([1.0, 1.0], predicted=[0, 99], true=[0, 98], count=100)
    assert found.values == {"loss": 1.0, "accuracy": 0.5, "macro_f1": 0.5}
    assert (len(found.confusion), found.confusion[98][99]) == (100, 1)
    sums = class_sums([1.0, 1.0], [0, 99], [0, 98], 100)
    assert sums.to_send() == sums.model_copy(update={"confusion": ()})
    fields = {
        "task_id": "e000001", "attempt": 1, "client_id": "c", "worker_id": "w", "version": 0,
        "seconds": 1.0,
    }  # fmt: skip
    EvalResult.model_validate({**fields, "sums": sums.to_send()})
    with pytest.raises(ValidationError, match="more than 64 classes"):
        EvalResult.model_validate({**fields, "sums": sums})


def test_a_loss_that_is_not_finite_is_no_sum() -> None:
    for nats in ([math.nan], [math.inf], [math.inf, -math.inf]):
        with pytest.raises(ModelError, match="finite"):
            text_sums(nats, [1] * len(nats), [1] * len(nats))


@pytest.mark.parametrize(
    "found",
    [text_metrics([], [], []), preference_metrics([], [], [], 0.1), class_metrics([], [], [], 2)],
)
def test_an_empty_set_has_no_values(found: EvalMetrics) -> None:
    assert found == EvalMetrics(0)
    assert all(found.interval(metric) is None for of in METRICS.values() for metric in of)


def test_wilsons_interval_agrees_with_published_values() -> None:
    # Newcombe 1998, table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29.
    expected = {
        (81, 263): (0.2553, 0.3662), (15, 148): (0.0624, 0.1605),
        (0, 20): (0.0, 0.1611), (1, 29): (0.0061, 0.1718),
    }  # fmt: skip
    for (right, rows), bounds in expected.items():
        assert wilson(right / rows, rows) == pytest.approx(bounds, abs=5e-5)


@given(st.integers(1, 500), st.data())
def test_an_interval_contains_its_share_and_stays_within_zero_and_one(
    rows: int, data: st.DataObject
) -> None:
    share = data.draw(st.integers(0, 2 * rows)) / (2 * rows)
    low, high = wilson(share, rows)
    assert 0 <= low <= share + 1e-12 and share - 1e-12 <= high <= 1 and low < high


def test_only_shares_have_an_interval() -> None:
    found = preference_metrics([(-1.0, -2.0)] * 4, [(0.0, 0.0)] * 4, [(1, 1)] * 4, 0.1)
    assert found.interval(MAIN_METRIC["va"]) == wilson(1.0, 4)
    assert found.interval(METRICS["va"][3]) is None


def test_the_worst_client_has_the_highest_loss_or_the_lowest_accuracy() -> None:
    losses = {
        "a": text_metrics([2.0], [1], [1]),
        "b": text_metrics([4.0], [1], [1]),
        "none": EvalMetrics(0),
    }
    found = client_spread(MAIN_METRIC["sft"], losses)
    assert found is not None
    assert (found.clients, found.worst, found.worst_value) == (2, "b", 4.0)
    assert (found.range, found.deviation) == (2.0, 1.0)
    right = class_metrics([0.1], [0], [0], 2)
    wrong = class_metrics([0.9], [1], [0], 2)
    judged = client_spread(MAIN_METRIC["cls"], {"a": right, "b": wrong, "c": wrong})
    assert judged is not None and (judged.worst, judged.range) == ("b", 1.0)
    assert client_spread(MAIN_METRIC["cls"], {"none": EvalMetrics(0)}) is None
