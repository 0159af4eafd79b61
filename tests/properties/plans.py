"""Strategies: plans of runs, and what clients claim about their work."""

from __future__ import annotations

from types import MappingProxyType

from hypothesis import strategies as st

from common.config.config import AggregationConfig, PhaseConfig, PrivacyConfig, ScheduleConfig
from common.protocol.fields import RowKind
from common.protocol.naming import LOCAL_SITE
from common.protocol.updates import ContributionStats
from coordinator.core.state import Client, EvaluationPlan, Plan

SITES = (LOCAL_SITE, "near", "far")
INVITED = ("near", "near.a", "far", "far.a")
"""Clients that may join; the sites are invited."""
SECONDS = (0.1, 10.0, 30.0, 100.0, 1000.0, -5.0, -1000.0)
"""Steps of the clock, which may be set back."""

rows = st.dictionaries(
    st.sampled_from(["sft", "va", "kto"]), st.sampled_from([0, 1, 60, 2**53]), max_size=3
)
"""Claims of training rows by kind."""

statistics = st.builds(
    ContributionStats,
    num_samples=st.sampled_from([50, 1, 0, 2**53]),
    num_tokens=st.sampled_from([100, 0]),
    steps=st.sampled_from([5, 0]),
    avg_loss=st.sampled_from([2.0, 1e-300, 1e-6, 0.5, 1e4]),
    loss_before=st.sampled_from([2.0, None]),
    loss_after=st.sampled_from([1.5, None, 1e-300, 1e4]),
    train_seconds=st.just(1.0),
    delta_norm=st.just(1.0),
)


@st.composite
def schedules(draw: st.DrawFn) -> ScheduleConfig:
    concurrency = draw(st.integers(1, 4))
    buffer = draw(st.integers(1, concurrency))
    synchronous = draw(st.booleans())
    return ScheduleConfig(
        concurrency=concurrency,
        buffer_size=buffer,
        reissue="commit" if synchronous else "immediate",
        quorum=draw(st.none() | st.integers(1, buffer)),
        round_deadline_s=draw(st.sampled_from([50.0, 500.0])),
        flush_s=draw(st.sampled_from([20.0, 500.0])),
        lease_s=draw(st.sampled_from([10.0, 60.0])),
        task_deadline_s=draw(st.sampled_from([90.0, 900.0])),
        max_staleness=draw(st.sampled_from([20, 0, 1])),
        adaptive_steps=draw(st.sampled_from([None, (2, 20)])),
    )


aggregations = st.builds(
    AggregationConfig,
    contribution_mode=st.sampled_from(["combined", "loss", "size"]),
    contribution_source=st.sampled_from(["train", "holdout", "server", "federated", "cosine"]),
    score_deadline_s=st.sampled_from([0.5, 60.0]),
    score_scale=st.sampled_from(["log", "raw"]),
    temperature=st.sampled_from([1.0, 1e-6, 100.0]),
    floor=st.sampled_from([0.1, 0.0, 1.0]),
    cap=st.sampled_from([3.0, 0.5, 1.5]),
    over_norm=st.sampled_from(["clip", "reject"]),
)

privacies = st.builds(
    PrivacyConfig, clip_norm=st.just(2.0), max_versions=st.sampled_from([1, 2, None])
)

evaluation_plans = st.builds(
    EvaluationPlan,
    federated=st.booleans(),
    every=st.sampled_from([None, 1, 2]),
    deadline_s=st.sampled_from([40.0, 400.0]),
    max_rows=st.just(200),
)


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Draw a plan: some are of sites only, without clients of the coordinator's own, some private.

    Differential privacy needs uniform weights.
    """
    count = draw(st.sampled_from([3, 0, 1]))
    kinds: dict[RowKind, int] = {"sft": 100, "va": 40, "kto": 40}
    clients = {f"c{i}": Client(f"c{i}", LOCAL_SITE, kinds) for i in range(count)}
    objectives = draw(st.lists(st.sampled_from(["sft", "dpo", "kto"]), min_size=1, max_size=3))
    private = draw(st.sampled_from([False, False, True]))
    uniform = AggregationConfig(contribution_mode="uniform")
    return Plan(
        tuple(PhaseConfig(objective=each, versions=draw(st.integers(1, 3))) for each in objectives),
        draw(schedules()),
        uniform if private else draw(aggregations),
        MappingProxyType(clients),
        draw(evaluation_plans),
        draw(st.integers(1, 3)),
        draw(privacies) if private else PrivacyConfig(),
    )
