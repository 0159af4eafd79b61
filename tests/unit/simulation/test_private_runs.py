"""Differential privacy in virtual time: noise by seed, and hostile clients within their bound."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from common.config.config import FederationConfig
from evaluation.verification.verify import verify
from tests.support.simulations import analytic_config, simulated

HOSTILE = {"faults": ["scale"], "faulty": 0.5, "fault_scale": 1e6}


def private_config(folder: Path, name: str, noise: float, **sections: Any) -> FederationConfig:
    privacy = {"clip_norm": 0.1, "noise_multiplier": noise, "max_versions": 4}
    uniform = {"contribution_mode": "uniform"}
    return analytic_config(folder, name, privacy=privacy, aggregation=uniform, **sections)


def test_noise_follows_from_the_seed_of_the_run(tmp_path: Path) -> None:
    digests = {}
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        run, summary = simulated(private_config(tmp_path, name, 1.0, run={"seed": seed}))
        assert summary.complete
        digests[name] = [version.sha256 for version in run.versions]
    assert digests["a"] == digests["b"] != digests["c"]


def test_versions_and_their_noise_are_recomputed(tmp_path: Path) -> None:
    keep = {"keep_updates": True}
    run, _ = simulated(private_config(tmp_path, "a", 1.0, run=keep, simulation=HOSTILE))
    found = verify(run.directory)
    assert found.right and found.complete


def test_no_client_moves_a_version_by_more_than_its_share(tmp_path: Path) -> None:
    # Two updates in a buffer of two: C/2 each.
    run, _ = simulated(private_config(tmp_path, "a", 0.0, simulation=HOSTILE))
    before = run.tensors(0)
    for version in run.versions[1:]:
        after = run.tensors(version.version)
        squares = [float(((after[name] - before[name]) ** 2).sum()) for name in after]
        assert 0 < np.sqrt(sum(squares)) <= 0.1 * (1 + 1e-5)
        before = after
