"""Federation whose clients fit a small matrix with LoRA, for tests of the aggregation rules.

The model is one layer s·B·A, s = α/r, and a bias. Each client has a target matrix of its own, and
its loss is half the squared distance to it, whose gradient needs no framework.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np

from common.protocol import codec
from common.protocol.heartbeat import Heartbeat
from common.protocol.layout import TensorLayout
from common.protocol.tasks import TrainTask
from common.protocol.tensors import Tensors
from common.protocol.updates import Update
from common.protocol.wire import pack, unpack
from coordinator.storage.run import PreparedRun
from tests.support.coordinator_records import prepared_run
from tests.support.polled_federation import PolledFederation
from tests.support.virtual_federation import make_stats
from worker.models.source import ModelSource

OUT, IN, RANK = 20, 18, 16
A, B, BIAS = "layer.lora_A.weight", "layer.lora_B.weight", "score.bias"
STEPS, RATE = 5, 0.1


def beginning(_: Path) -> PreparedRun:
    """Return the start of a run, with a random A and a B of zeros."""
    rng = np.random.default_rng(7)
    tensors = {
        A: rng.normal(size=(RANK, IN)).astype(np.float32) / 4,
        B: np.zeros((OUT, RANK), np.float32),
        BIAS: np.zeros(OUT, np.float32),
    }
    return replace(prepared_run(Path()), adapter=tensors)


def target(client: str) -> np.ndarray:
    """Return the matrix that a client fits: a common one of rank 12, and a little of its own."""
    common, own = np.random.default_rng(1), np.random.default_rng(int(client[-1]) + 2)
    matrix = common.normal(size=(OUT, 12)) @ common.normal(size=(12, IN)) / 12
    return np.asarray(matrix + own.normal(size=(OUT, IN)) / 20)


def loss(tensors: Tensors, scale: float) -> float:
    """Return the mean loss of all clients."""
    found = [tensors[B] @ tensors[A] * scale - target(f"client_{i}") for i in range(3)]
    return float(np.mean([np.square(each).sum() / 2 for each in found]))


@dataclass
class LoraFederation:
    """Federation with one worker for three clients, and the tasks that the worker got."""

    directory: Path
    rule: str
    ranks: dict[str, int] = field(default_factory=dict)
    versions: int = 6
    tasks: list[TrainTask] = field(default_factory=list)

    def make(self, **settings: Any) -> PolledFederation:
        """Return the federation with its run directory; `serve` runs it to its end."""
        polled = PolledFederation(
            self.directory,
            prepare=beginning,
            aggregation={"rule": self.rule},
            model={
                "lora": {"r": RANK, "alpha": 2 * RANK},
                "ranks": self.ranks,
            },
            keep_updates=True,
            versions=(self.versions,),
            **settings,
        )
        run = polled.topology.run
        source = ModelSource(polled.store, run, self.directory, lambda message, fraction: None)

        def answer(frame: bytes) -> bytes:
            task, _ = unpack(TrainTask, frame)
            self.tasks.append(task)
            start = source.fetch_adapter(task, Event())
            assert start is not None
            return _train(task, start)

        def idle_workers() -> None:
            """Let two more workers seem to wait, so that tasks are issued side by side."""
            for name in ("w1", "w2"):
                idle = Heartbeat(worker_id=name, site="local", state="waiting")
                polled.store.put_heartbeat(run, idle)

        polled.answer, polled.on_turn = answer, idle_workers
        return polled


def _train(task: TrainTask, start: Tensors) -> bytes:
    """Return the update of a task: a few steps of gradient descent from its version."""
    assert task.lora is not None
    scale = task.lora.alpha / task.lora.r
    a, b = start[A].astype(np.float64), start[B].astype(np.float64)
    assert (a.shape[0], b.shape[1]) == (task.lora.r, task.lora.r)
    for _ in range(STEPS):
        gradient = scale * (scale * b @ a - target(task.client_id))
        step_b, step_a = gradient @ a.T, b.T @ gradient
        b -= RATE * step_b
        a -= 0 if task.frozen else RATE * step_a
    delta = {B: b - start[B], BIAS: np.ones(OUT)} | ({} if task.frozen else {A: a - start[A]})
    tensors = {name: value.astype(np.float32) for name, value in delta.items()}
    layout, data = codec.encode("fp32", tensors)
    assert layout.digest == task.layout == TensorLayout.of(tensors).digest
    record = Update(
        task_id=task.task_id,
        attempt=task.attempt,
        client_id=task.client_id,
        worker_id="w0",
        phase=task.phase,
        base_version=task.base_version,
        stats=make_stats(),
        codec="fp32",
        layout=layout.digest,
        sha256=codec.digest(data),
    )
    return pack(record, data)
