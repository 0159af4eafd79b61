"""The serialised form of an update's share of a commit stays flat, as recorded runs have it."""

from __future__ import annotations

import json

from common.protocol.updates import ContributionStats
from common.protocol.versions import UpdateSummary, VersionSummary
from common.protocol.wire import pack, unpack

STATS = {
    "num_samples": 10,
    "num_tokens": 100,
    "steps": 5,
    "avg_loss": 2.0,
    "loss_before": 2.1,
    "loss_after": 1.9,
    "train_seconds": 1.0,
    "delta_norm": 1.0,
}
FLAT = {
    "task_id": "t1",
    "client_id": "c0",
    "worker_id": "w",
    "base_version": 0,
    "staleness": 0,
    "score": 2.0,
    "weight": 0.5,
    "staleness_factor": 1.0,
    "participation_factor": 1.0,
    "clip": 1.0,
    "coefficient": 0.5,
    "nbytes": 9,
    **STATS,
}


def version(update: UpdateSummary) -> VersionSummary:
    return VersionSummary(version=1, phase=0, at=1.0, sha256="0" * 64, nbytes=9, updates=(update,))


def test_a_flat_line_of_a_recorded_run_is_read_with_nested_statistics() -> None:
    update = UpdateSummary.model_validate_json(json.dumps(FLAT))
    assert update.stats == ContributionStats.model_validate(STATS)


def test_statistics_are_written_beside_the_other_fields() -> None:
    fields = UpdateSummary.model_validate(FLAT).fields()
    assert FLAT.items() <= fields.items() and "stats" not in fields


def test_a_version_summary_survives_json_and_the_wire() -> None:
    summary = version(UpdateSummary.model_validate(FLAT))
    assert VersionSummary.model_validate_json(summary.model_dump_json()) == summary
    assert unpack(VersionSummary, pack(summary))[0] == summary
