"""The gate, the selection of what is trained on, and the learning rate."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from common.config.config import IncrementalConfig
from common.protocol.fields import RowKind
from learning.evaluation.measurement import Measurement
from worker.incremental.training import replay
from worker.incremental.training.evaluation import still_helps
from worker.incremental.training.gate import BatchRejection, BatchRejectionKind, GateFigures, check
from worker.incremental.training.shadow import learning_rate

CONFIG = IncrementalConfig()


def figures(
    new: tuple[float, float], anchor: tuple[float, float] | None, norm: float = 1.0
) -> GateFigures:
    anchors = [Measurement(loss) for loss in anchor] if anchor else [None, None]
    return GateFigures(Measurement(new[0]), Measurement(new[1]), anchors[0], anchors[1], norm, 2.0)


@pytest.mark.parametrize(
    ("found", "kind"),
    [
        (figures((1.0, 0.9), (1.0, 1.02)), None),
        (figures((1.0, 0.9), (1.0, 1.03)), BatchRejectionKind.FORGETTING),
        (figures((1.0, 0.9), (0.1, 0.109)), None),  # 0.01 nats are not forgetting
        (figures((1.0, 0.9), None), None),
        (figures((1.0, 1.0), (1.0, 1.0)), BatchRejectionKind.NO_IMPROVEMENT),
        (figures((1.0, 0.9), (1.0, 1.0), 2.1), BatchRejectionKind.NORM),
        (figures((1.0, math.nan), (1.0, 1.0)), BatchRejectionKind.NOT_FINITE),
        (figures((1.0, 0.9), (1.0, math.inf)), BatchRejectionKind.NOT_FINITE),
    ],
)
def test_the_gate_rejects_what_is_not_better_or_forgets(
    found: GateFigures, kind: BatchRejectionKind | None
) -> None:
    rejection = check(found, CONFIG)
    assert (rejection.kind if rejection else None) is kind


def test_a_rejection_states_the_figures() -> None:
    rejection = check(figures((1.0, 0.9), (1.0, 1.03)), CONFIG)
    assert rejection is not None
    assert rejection.reason == "forgetting: anchor loss 1.000 to 1.030, over 1.020"
    assert rejection.public_reason == rejection.reason


def test_a_validators_own_words_are_not_public() -> None:
    rejection = BatchRejection(BatchRejectionKind.VALIDATOR, "I saw a secret")
    assert "secret" not in rejection.public_reason


@pytest.mark.parametrize(
    ("task", "kind"),
    [
        ((0.5, 0.55), None),
        ((0.5, 0.56), BatchRejectionKind.CONTRADICTION),
        ((0.1, 0.13), None),
        ((0.1, 0.14), BatchRejectionKind.CONTRADICTION),
        ((0.1, math.nan), BatchRejectionKind.CONTRADICTION),
    ],
)
def test_a_better_loss_on_everything_else_hides_no_contradiction(
    task: tuple[float, float], kind: BatchRejectionKind | None
) -> None:
    old, new = (Measurement(loss) for loss in task)
    found = replace(figures((1.0, 0.5), (1.0, 0.9)), task_before=old, task_after=new)
    rejection = check(found, CONFIG)
    assert (rejection.kind if rejection else None) is kind


def test_without_a_gate_only_what_is_not_finite_is_rejected() -> None:
    off = CONFIG.model_copy(update={"gate": False})
    assert check(figures((1.0, 2.0), (1.0, 9.0), 99.0), off) is None
    assert check(figures((1.0, math.nan), None), off) is not None


def test_a_fifth_of_the_items_is_held_out_and_none_of_a_few() -> None:
    keys = [f"{n:02d}" for n in (7, 3, 9, 1, 5, 8, 2, 6, 4, 0)]
    train, held = replay.split_held_out(keys)
    assert held == (3, 9)  # "01" and "00" have the smallest hashes
    assert sorted((*train, *held)) == list(range(10))
    assert replay.split_held_out(keys[:4]) == ((0, 1, 2, 3), ())


def test_a_balanced_sample_has_groups_of_equal_size_where_possible() -> None:
    rows = ["a1", "a2", "a3", "a4", "a5", "b1", "b2", "c1"]
    chosen = replay.balanced_sample(rows, 6, 0, lambda row: row[0])
    assert len(chosen) == 6 and len(set(chosen)) == 6
    assert [sum(row[0] == group for row in chosen) for group in "abc"] == [3, 2, 1]


def test_half_of_the_mixed_examples_are_new() -> None:
    mix = replay.mix(["n1", "n2"], ["o1", "o2", "o3"], 8, 0.5)
    assert sorted(mix) == ["n1", "n1", "n2", "n2", "o1", "o1", "o2", "o3"]
    assert replay.mix(["n"], [], 3, 0.5) == ["n"] * 3


@pytest.mark.parametrize(("new", "expected"), [(1, 5), (4, 10), (100, 20)])
def test_more_items_get_more_steps_up_to_the_limit(new: int, expected: int) -> None:
    assert replay.step_count(new, 8, 0.5, 20) == expected


@pytest.mark.parametrize(
    ("kind", "full", "lr", "expected"),
    [
        ("cls", False, None, 3e-4),
        ("va", False, None, 5e-4),
        ("cls", True, None, 1e-5),
        ("cls", False, 0.5, 0.5),
    ],
)
def test_the_learning_rate_depends_on_the_kind_unless_it_is_configured(
    kind: RowKind, full: bool, lr: float | None, expected: float
) -> None:
    assert learning_rate(IncrementalConfig(lr=lr), kind, full=full) == expected


def test_a_balanced_prefix_has_groups_of_equal_size_unless_that_leaves_too_few() -> None:
    rows = ["a1", "b1", "a2", "a3", "b2", "a4", "a5"]
    assert replay.balanced_prefix(rows, 0, lambda row: row[0]) == ["a1", "b1", "a2", "b2"]
    assert replay.balanced_prefix(rows, 6, lambda row: row[0]) == [
        "a1",
        "b1",
        "a2",
        "b2",
        "a3",
        "a4",
    ]
    assert replay.balanced_prefix(rows, 99, lambda row: row[0]) == [
        "a1",
        "b1",
        "a2",
        "b2",
        "a3",
        "a4",
        "a5",
    ]
    assert replay.balanced_prefix([], 5) == []


@pytest.mark.parametrize(
    ("new", "anchor", "kept"),
    [
        ((1.0, 0.97), (0.50, 0.50), True),
        ((1.0, 0.97), (0.50, 0.51), False),  # the gate itself would let this pass
        ((1.0, 0.99), (0.50, 0.40), False),
        ((1.0, 0.97), None, True),
    ],
)
def test_the_local_part_is_kept_after_acceptance_only_if_it_still_helps(
    *, new: tuple[float, float], anchor: tuple[float, float] | None, kept: bool
) -> None:
    assert still_helps(figures(new, anchor)) is kept
