"""Valid records of tasks and updates, to vary in tests."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, NoReturn

from common.protocol.evaluations import EvalTask
from common.protocol.tasks import TrainTask
from common.protocol.updates import Update
from worker.data.references import References

NOTHING = hashlib.sha256(b"").hexdigest()


def task(task_id: str = "t1", **changed: Any) -> TrainTask:
    """Return a task; `steps`, `lr` and `batch_size` go into its training."""
    training: dict[str, Any] = {
        "steps": 2, "epochs": 0, "batch_size": 4, "lr": 1e-3, "max_grad_norm": 1.0,
        "prox_mu": 0.0, "max_length": 128,
    }  # fmt: skip
    training |= {name: changed.pop(name) for name in training.keys() & changed.keys()}
    fields: dict[str, Any] = {
        "task_id": task_id, "attempt": 1, "run": "run-1", "client_id": "client_0", "phase": 0,
        "objective": "sft", "training": training, "base_version": 0,
        "base": {"name": "tiny", "kind": "local", "digest": NOTHING},
        "adapter": {"sha256": NOTHING, "nbytes": 1}, "lora": {"r": 2, "alpha": 4},
        "update_codec": "fp32", "seed": 1, "issued_at": 0.0, "deadline_s": 60.0,
    }  # fmt: skip
    return TrainTask.model_validate(fields | changed)


def update(task_id: str = "t1", **changed: Any) -> Update:
    """Return an update without tensors."""
    counts = dict.fromkeys(("num_samples", "num_tokens", "steps"), 1)
    losses = dict.fromkeys(("avg_loss", "loss_before", "loss_after"), 1.0)
    fields: dict[str, Any] = {
        "task_id": task_id, "attempt": 1, "client_id": "client_0", "worker_id": "w", "phase": 0,
        "base_version": 0, "codec": "fp32", "layout": NOTHING, "sha256": NOTHING,
        "stats": counts | losses | {"train_seconds": 1.0, "delta_norm": 1.0},
    }  # fmt: skip
    return Update.model_validate(fields | changed)


def no_reference() -> References:
    """Return references for tasks that need none: fetching them is an error."""

    def fetch() -> NoReturn:
        raise AssertionError("this task has no reference")

    return References(Path("nowhere"), fetch)


def eval_task(task_id: str = "e1", **changed: Any) -> EvalTask:
    """Return an evaluation of version 0."""
    fields: dict[str, Any] = {
        "task_id": task_id, "attempt": 1, "run": "run-1", "client_id": "client_0", "version": 0,
        "phase": 0, "objective": "sft", "max_length": 256, "layout": NOTHING, "max_rows": 100,
        "base": {"name": "tiny", "kind": "local", "digest": NOTHING},
        "adapter": {"sha256": NOTHING, "nbytes": 1}, "lora": {"r": 2, "alpha": 4},
        "issued_at": 0.0, "deadline_s": 60.0,
    }  # fmt: skip
    return EvalTask.model_validate(fields | changed)
