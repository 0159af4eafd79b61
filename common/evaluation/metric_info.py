"""Names of the metrics of each kind of rows, and how to read them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from common.protocol.fields import RowKind


@dataclass(frozen=True)
class MetricInfo:
    """Key and name of a metric, and how to read it."""

    key: str  # among the values of an evaluation
    title: str  # name for people, with the unit
    higher: bool  # whether more is better
    share: bool = False  # whether it is a share of the rows, which has an interval
    decimals: int = 3  # that are worth printing


METRICS: Mapping[RowKind, tuple[MetricInfo, ...]] = {
    "sft": (
        MetricInfo("nats_per_token", "nats per token", higher=False),
        MetricInfo("perplexity", "perplexity", higher=False, decimals=1),
        MetricInfo("bits_per_byte", "bits per byte", higher=False),
    ),
    "va": (
        MetricInfo("accuracy", "preference accuracy", higher=True, share=True),
        MetricInfo("accuracy_per_token", "preference accuracy per token", higher=True, share=True),
        MetricInfo("reward_accuracy", "reward accuracy", higher=True, share=True),
        MetricInfo("reward_margin", "reward margin", higher=True),
    ),
    "kto": (
        MetricInfo("reward_accuracy", "reward accuracy", higher=True, share=True),
        MetricInfo("reward_margin", "reward margin, good − bad", higher=True),
        MetricInfo("reward_good", "mean reward of good answers", higher=True),
        MetricInfo("reward_bad", "mean reward of bad answers", higher=False),
        MetricInfo("loss", "KTO loss", higher=False),
    ),
    "cls": (
        MetricInfo("loss", "loss (nats per text)", higher=False),
        MetricInfo("accuracy", "accuracy", higher=True, share=True),
        MetricInfo("macro_f1", "macro-F1", higher=True),
    ),
}
"""Metrics of each kind of rows, in the order in which they are reported."""
MAIN_METRIC: Mapping[RowKind, MetricInfo] = {
    "sft": METRICS["sft"][0],
    "va": METRICS["va"][0],
    "kto": METRICS["kto"][0],
    "cls": METRICS["cls"][1],
}
"""The metric by which clients and versions are compared."""
CLIENT_METRICS: Mapping[RowKind, tuple[MetricInfo, ...]] = {
    "sft": METRICS["sft"][:2],
    "va": (METRICS["va"][0], METRICS["va"][3]),
    "kto": METRICS["kto"][:2],
    "cls": METRICS["cls"][1:],
}
"""Metrics that are reported for each client; the main one first."""
REWARD_KINDS: tuple[RowKind, ...] = ("va", "kto")
"""Kinds of which some metrics compare a model with a reference."""
