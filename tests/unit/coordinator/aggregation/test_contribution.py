"""FCCL weights, on numbers that can be checked by hand, and for any claims of clients."""

from __future__ import annotations

import math
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.config.config import AggregationConfig
from common.protocol.updates import ContributionStats
from coordinator.aggregation.contribution import (
    apply_cap,
    apply_floor,
    clamp_losses,
    contribution_loss,
    contribution_score,
    contribution_weights,
    measured_values,
    scaled_softmax,
    single_client_weight,
    softmax,
)
from tests.support.virtual_federation import make_stats

SIZES = [120.0, 300.0, 500.0, 1000.0, 2000.0]
"""Client sizes; docs/algorithms.md quotes the weight of the largest."""
LOG = AggregationConfig()
RAW = AggregationConfig(score_scale="raw")

losses = st.floats(1e-300, 1e4, exclude_min=True)
samples = st.integers(0, 2**53)
federations = st.lists(st.tuples(samples, losses), min_size=1, max_size=12)
configs = st.builds(
    AggregationConfig,
    contribution_mode=st.sampled_from(["loss", "size", "combined"]),
    contribution_source=st.sampled_from(["train", "holdout"]),
    score_scale=st.sampled_from(["raw", "log"]),
    temperature=st.floats(1e-6, 1e6),
    floor=st.floats(0, 1),
    cap=st.floats(0.1, 10),
)


def group(*clients: tuple[int, float]) -> dict[str, ContributionStats]:
    return {f"c{i}": make_stats(n, loss) for i, (n, loss) in enumerate(clients)}


def only_weights(
    clients: dict[str, ContributionStats], config: AggregationConfig = LOG
) -> list[float]:
    return [weight for _, weight in contribution_weights(clients, config).values()]


# single functions


@pytest.mark.parametrize(
    ("scale", "temperature", "largest"),
    [("raw", 1, 1.0), ("raw", 100, 1.0), ("raw", 1000, 0.52), ("log", 1, 0.51), ("log", 2, 0.35)],
)
def test_the_largest_of_five_sizes_has_the_documented_weight(
    scale: str, temperature: float, largest: float
) -> None:
    found = max(scaled_softmax(SIZES, scale, temperature))
    assert found == pytest.approx(largest, abs=0.005 if largest < 1 else 0.00005)


def test_log_scale_at_temperature_one_is_fedavg() -> None:
    assert scaled_softmax(SIZES, "log", 1) == pytest.approx([n / sum(SIZES) for n in SIZES])


def test_log_scale_goes_from_winner_takes_all_to_uniform() -> None:
    assert scaled_softmax([1, 2], "log", 0.01) == pytest.approx([0, 1])
    assert scaled_softmax([1, 2], "log", 1e6) == pytest.approx([0.5, 0.5], abs=1e-6)


def test_softmax_of_zero_and_log_three() -> None:
    assert softmax([0, math.log(3)]) == pytest.approx([0.25, 0.75])


def test_softmax_does_not_overflow() -> None:
    assert softmax([1e300, 0, -1e300]) == [1, 0, 0]


def test_scores_take_the_sample_count_once() -> None:
    assert contribution_score(2.0, 300, "loss") == 0.5
    assert contribution_score(2.0, 300, "size") == 300
    assert contribution_score(2.0, 300, "combined") == 150


def test_a_claimed_loss_near_zero_has_a_finite_score() -> None:
    assert contribution_score(5e-324, 1, "loss") == pytest.approx(1e6)


def test_losses_are_clamped_to_half_and_twice_the_median() -> None:
    assert clamp_losses([0.001, 2.0, 100.0]) == [1.0, 2.0, 4.0]


def test_the_floor_gives_every_client_some_weight() -> None:
    assert apply_floor([1.0, 0.0], 0.1) == pytest.approx([0.95, 0.05])


def test_the_excess_over_the_cap_goes_to_the_others_in_proportion() -> None:
    assert apply_cap([0.7, 0.2, 0.1], 1.5) == pytest.approx([0.5, 1 / 3, 1 / 6])


def test_the_excess_can_lift_another_weight_to_the_cap() -> None:
    assert apply_cap([0.6, 0.36, 0.03, 0.01], 1.6) == pytest.approx([0.4, 0.4, 0.15, 0.05])


def test_the_excess_is_shared_equally_where_the_others_have_nothing() -> None:
    assert apply_cap([1.0, 0.0, 0.0, 0.0], 3) == pytest.approx([0.75, 1 / 12, 1 / 12, 1 / 12])


def test_a_cap_of_one_makes_equal_weights() -> None:
    assert apply_cap([0.7, 0.2, 0.1], 1) == [1 / 3] * 3


def test_the_loss_is_the_one_that_the_source_names() -> None:
    both = make_stats(loss=2.0, after=1.5)
    assert (contribution_loss(both, "train"), contribution_loss(both, "holdout")) == (2.0, 1.5)


# weights of a buffer


def test_combined_weights_of_equal_losses_are_sizes_with_the_floor() -> None:
    # 0.9 · n/400 + 0.1/2, and a cap of 3/2 that does not bind
    assert only_weights(group((100, 2.0), (300, 2.0))) == pytest.approx([0.275, 0.725])


def test_raw_adds_no_clamp_no_floor_and_no_cap() -> None:
    config = AggregationConfig(score_scale="raw", contribution_mode="loss", floor=0.5, cap=1)
    expected = softmax([1 / 0.05, 1 / 0.3, 1 / 0.5])
    assert only_weights(group((9, 0.05), (9, 0.3), (9, 0.5)), config) == expected
    assert expected[0] > 0.9999


def test_corrupted_labels_weigh_less_than_clean_peers_of_equal_size() -> None:
    corrupted, *clean = only_weights(group((200, 6.0), (200, 2.0), (200, 2.1), (200, 1.9)))
    assert corrupted < 0.6 * min(clean)


def test_a_loss_claimed_to_be_near_zero_does_not_win_the_round() -> None:
    liar, *honest = only_weights(group((200, 1e-9), (200, 2.0), (200, 2.0), (200, 2.0)))
    assert liar < 2.01 * honest[0]


def test_the_only_client_in_a_buffer_counts_by_its_weight_among_all() -> None:
    clients = group((100, 2.0), (100, 2.0), (200, 2.0))
    # w = 0.9 · 1/4 + 0.1/3 of three clients
    value, step = single_client_weight("c0", clients, LOG)
    assert value == 50
    assert step == pytest.approx(3 * (0.9 / 4 + 0.1 / 3))


def test_the_weight_of_the_only_client_stays_between_a_half_and_two() -> None:
    clients = group((1, 2.0), *[(1000, 2.0)] * 9)
    assert single_client_weight("c0", clients, LOG)[1] == 0.5
    clients = group((100_000, 2.0), *[(1, 2.0)] * 9)
    assert single_client_weight("c0", clients, LOG)[1] == 2.0


def test_the_only_client_of_a_run_has_weight_one() -> None:
    assert single_client_weight("c0", group((100, 2.0)), LOG)[1] == 1.0


# arbitrary claims of clients


@given(federations, configs)
def test_weights_are_finite_shares_that_sum_to_one(
    clients: list[tuple[int, float]], config: AggregationConfig
) -> None:
    found = only_weights(group(*clients), config)
    assert all(0 <= weight <= 1 + 1e-9 for weight in found)
    assert sum(found) == pytest.approx(1)


@given(federations, configs)
def test_cap_and_floor_hold_for_everyone(
    clients: list[tuple[int, float]], config: AggregationConfig
) -> None:
    config = config.model_copy(update={"score_scale": "log"})
    found = only_weights(group(*clients), config)
    cap = max(1.0, config.cap)
    assert max(found) <= cap / len(found) + 1e-9
    if cap > 1:  # handing out the excess only adds to the floor
        assert min(found) >= config.floor / len(found) - 1e-9


@given(federations, configs, st.randoms())
def test_the_order_of_clients_does_not_matter(
    clients: list[tuple[int, float]], config: AggregationConfig, random: Random
) -> None:
    named = group(*clients)
    mixed = list(named.items())
    random.shuffle(mixed)
    one, other = contribution_weights(named, config), contribution_weights(dict(mixed), config)
    for client in named:
        assert one[client][1] == pytest.approx(other[client][1], abs=1e-9)


@given(st.lists(st.tuples(st.integers(1, 10**6), st.floats(0.01, 50)), min_size=1), st.floats(1, 9))
def test_log_scale_does_not_depend_on_units(
    clients: list[tuple[int, float]], factor: float
) -> None:
    one = only_weights(group(*clients))
    other = only_weights(group(*((n, loss * factor) for n, loss in clients)))
    assert other == pytest.approx(one, abs=1e-9)


@given(federations, configs)
def test_the_weight_of_the_only_client_is_bounded_for_any_claims(
    clients: list[tuple[int, float]], config: AggregationConfig
) -> None:
    assert 0.5 <= single_client_weight("c0", group(*clients), config)[1] <= 2


# sources that clients cannot inflate


def measured(source: str, **more: object) -> AggregationConfig:
    return AggregationConfig.model_validate(
        {"contribution_source": source, "contribution_mode": "loss", "floor": 0.0, "cap": 9, **more}
    )


def test_drops_are_limited_to_a_range_around_the_median_of_the_positive_ones() -> None:
    found = measured_values([0.2, 0.1, 0.3, 9.0, -5.0])
    assert found == pytest.approx([0.2, 0.1, 0.3, 0.5, 0.0125])  # the median is 0.25


def test_only_the_ratios_of_measured_values_matter() -> None:
    small = measured_values([0.04, -0.05, 0.02])
    assert small == pytest.approx([0.04, 0.0015, 0.02])  # the median is 0.03
    assert measured_values([0.4, -0.5, 0.2]) == pytest.approx([10 * value for value in small])


@pytest.mark.parametrize("values", [[None, None], [-1.0, 0.0], [-0.3, None]])
def test_updates_without_a_measurable_gain_count_the_same(values: list[float | None]) -> None:
    assert measured_values(values) == [1.0, 1.0]


def test_a_missing_value_is_the_median_of_the_others() -> None:
    assert measured_values([0.1, None, 0.2, 0.3])[1] == pytest.approx(0.2)


def test_the_weight_follows_the_drop_and_not_the_claimed_loss() -> None:
    honest, boaster = make_stats(100, 3.0), make_stats(100, 0.01)
    config = measured("server")
    found = contribution_weights({"a": honest, "b": boaster}, config, {"a": 0.3, "b": -0.2})
    assert found["a"] == pytest.approx((0.3, 0.3 / 0.315))
    assert found["b"] == pytest.approx((0.015, 0.015 / 0.315))


@pytest.mark.parametrize(("mode", "score"), [("loss", 0.3), ("combined", 30.0), ("size", 100.0)])
def test_the_mode_combines_the_drop_with_the_rows(mode: str, score: float) -> None:
    config = measured("federated", contribution_mode=mode)
    stats = {"a": make_stats(100), "b": make_stats(50)}
    assert contribution_weights(stats, config, {"a": 0.3, "b": 0.3})["a"][0] == pytest.approx(score)


def test_the_raw_scale_uses_the_drop_as_it_is() -> None:
    config = measured("server", score_scale="raw", temperature=2.0)
    stats = {"a": make_stats(100), "b": make_stats(50)}
    found = contribution_weights(stats, config, {"a": -1.0, "b": 3.0})
    assert (found["a"][0], found["b"][0]) == (-1.0, 3.0)
    assert found["b"][1] == pytest.approx(1 / (1 + math.exp(-2.0)))


extreme = st.sampled_from([5e-324, 0.0, -1.0, 1e308, -1e308])  # what a site can claim
measures = st.lists(st.none() | extreme | st.floats(-1e4, 1e4), min_size=1, max_size=6)


@given(measures, st.sampled_from(["server", "federated", "cosine"]), configs)
def test_weights_of_any_measures_sum_to_one(
    values: list[float | None], source: str, config: AggregationConfig
) -> None:
    config = config.model_copy(update={"contribution_source": source})
    stats = group(*((100, 1.0) for _ in values))
    known = {f"c{i}": value for i, value in enumerate(values) if value is not None}
    found = [weight for _, weight in contribution_weights(stats, config, known).values()]
    assert sum(found) == pytest.approx(1.0) and all(math.isfinite(w) for w in found)
    assert 0.5 <= single_client_weight("c0", stats, config, known)[1] <= 2
