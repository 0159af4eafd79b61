"""`fccl verify` recomputes versions of every kind of step to the bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.protocol import codec
from common.protocol.tasks import TrainTask
from common.protocol.wire import unpack
from common.run_directory.update_journal import read_update_journal
from evaluation.verification.verify import verify
from tests.support.coordinator_records import START
from tests.support.polled_federation import update
from tests.support.witnessed_runs import WitnessedRun, witnessed_run


def answer(frame: bytes) -> bytes:
    """Return an update that depends on its task; those of one client are hostile."""
    task, _ = unpack(TrainTask, frame)
    random = np.random.default_rng(int(task.task_id[1:]))
    delta = {
        name: (0.1 + random.normal(0, 0.02, tensor.shape)).astype(np.float32)
        for name, tensor in START.items()
    }
    if task.client_id == "client_2":  # its cosine with the others is about −1/3
        for tensor in delta.values():
            tensor.flat[np.arange(tensor.size) % 3 > 0] *= -1
    return update(task, data=codec.encode("fp32", delta)[1])


def made(directory: Path, **aggregation: Any) -> WitnessedRun:
    settings = {"versions": (2, 1), "buffer_size": 3}
    return witnessed_run(directory, answer, aggregation=aggregation, **settings)


@pytest.mark.parametrize(
    "aggregation",
    [
        {"staleness": "hinge", "staleness_threshold": 1, "optimizer": {"name": "momentum"}},
        {"robust": {"rule": "median"}, "optimizer": {"name": "yogi"}, "server_lr": 0.01},
        {"robust": {"rule": "centered-clip"}},
    ],
)
def test_versions_of_optimizers_and_robust_rules_are_recomputed(
    tmp_path: Path, aggregation: dict[str, Any]
) -> None:
    run = made(tmp_path, **aggregation)
    found = verify(run.run)
    assert found.right and found.complete, [each.problems for each in found.versions]


def test_moments_begin_anew_with_each_phase(tmp_path: Path) -> None:
    run = made(tmp_path, optimizer={"name": "momentum", "beta1": 0.5})
    states = [each.state_sha256 for each in read_update_journal(run.run).versions.values()]
    assert states[0] is None and None not in states[1:]
    (run.run / "versions" / "000002" / "server_state.safetensors").unlink()
    update = read_update_journal(run.run).versions[1].updates[0]
    (run.run / "updates" / f"{update.task_id}.1").unlink()
    found = verify(run.run)  # version 3 begins a phase: it follows from version 2 without its state
    assert [each.recomputed for each in found.versions] == [None, None, None, True]


def test_an_update_that_was_left_out_is_marked_and_a_wrong_mark_is_found(tmp_path: Path) -> None:
    run = made(tmp_path, robust={"rule": "cosine-filter"})
    updates = [u for v in read_update_journal(run.run).versions.values() for u in v.updates]
    assert {u.client_id for u in updates if u.left_out} == {"client_2"}
    run.change_summary(1, lambda summary: summary["updates"][0].update(left_out=True))
    (problem,) = verify(run.run).versions[1].problems
    assert "left out" in problem
