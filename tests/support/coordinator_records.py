"""Records and prepared runs for the coordinator's tests, with small and plain values."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from common.protocol import codec
from common.protocol.fields import RowKind
from common.protocol.tasks import BaseRef
from common.protocol.tensors import Tensors
from common.protocol.updates import ContributionStats, Update
from common.protocol.versions import UpdateSummary, VersionSummary
from common.protocol.wire import pack
from coordinator.storage.run import PreparedRun
from tests.support.virtual_federation import make_stats

SHA = hashlib.sha256(b"base").hexdigest()
START: Tensors = {"a": np.zeros(40, np.float32), "b": np.ones((10, 10), np.float32)}


def prepared_run(_: Path) -> PreparedRun:
    """Return the start of a run with three clients; `create_run` calls this with a directory."""
    base = BaseRef(name="tiny", kind="local", digest=SHA)
    rows: dict[str, dict[RowKind, int]] = {f"client_{i}": {"sft": 100} for i in range(3)}
    return PreparedRun(base, Path("base"), rows, START, {"peft_type": "LORA"})


def version_summary(version: int, at: float = 0.0, *updates: UpdateSummary) -> VersionSummary:
    return VersionSummary(
        version=version, phase=0, at=at, sha256="0" * 64, nbytes=0, updates=updates
    )


def update_summary(base: int, loss: float, samples: int = 1) -> UpdateSummary:
    """Return the summary of an update that measured `loss` before it trained from `base`."""
    return UpdateSummary(
        task_id="t", client_id="c", worker_id="w", base_version=base, staleness=0, score=1.0,
        weight=1.0, staleness_factor=1.0, participation_factor=1.0, clip=1.0, coefficient=1.0,
        nbytes=1,
        stats=ContributionStats(
            num_samples=samples, num_tokens=1, steps=1, avg_loss=1.0, loss_before=loss,
            loss_after=1.0, delta_norm=1.0, train_seconds=1.0,
        ),
    )  # fmt: skip


def update_frame(value: float = 1.0, name: str = "a", **changed: object) -> bytes:
    """Return an encoded update whose one tensor, of shape (2, 3), is filled with `value`."""
    layout, data = codec.encode("fp32", {name: np.full((2, 3), value, np.float32)})
    record = Update(
        task_id="t000001",
        attempt=1,
        client_id="c0",
        worker_id="w0",
        phase=0,
        base_version=0,
        stats=make_stats(),
        codec="fp32",
        layout=layout.digest,
        sha256=codec.digest(data),
    )
    return pack(record.model_copy(update=changed), data)
