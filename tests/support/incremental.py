"""A client with a model, rows and an inbox, and the learner of its worker."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common.config.config import IncrementalConfig
from common.protocol.heartbeat import InboxFigures
from common.protocol.tasks import TrainTask
from common.protocol.tensors import Tensors
from common.store.embedded import EmbeddedStore
from learning.data.row_types import LabelledText
from learning.data.rows import write
from learning.models import lora, objective_model
from learning.training.device import Compute
from tests.support.processes import eventually
from tests.support.worker_records import NOTHING, task
from worker.data.shards import ClientData
from worker.events import WorkerEventKind
from worker.incremental.inbox import schema
from worker.incremental.inbox.inbox import Inbox
from worker.incremental.inbox.items import Item
from worker.incremental.inbox.learning_store import LearningStore, LocalModel
from worker.incremental.learner import Callbacks, Learner, LearnerSettings
from worker.models.loaded import ModelCache
from worker.models.source import ModelSource
from worker.spool import claim_slot

LABELS = ("bad", "fine")
COMPUTE = Compute(torch.device("cpu"), threads=1, autocast=False)
CONFIG = IncrementalConfig(lr=3e-2, max_norm=100.0)
NEVER = threading.Event()
OWN = [
    LabelledText(f"{first} {second} {word} film", label)
    for label, word in (("fine", "good"), ("bad", "dull"))
    for first in ("a", "it", "was", "very")
    for second in ("plot", "and", "not", "very", "was")
]


def film_items(fine: str, bad: str, count: int = 6) -> list[Item]:
    """Return items in which two words decide the class."""
    fillers = ("a", "it", "was", "and", "plot", "not")[:count]
    return [
        Item("cls", {"text": f"{filler} {word} film", "label": label}, "films")
        for filler in fillers
        for word, label in ((fine, "fine"), (bad, "bad"))
    ]


@dataclass
class LearnerHarness:
    """A client with a classifier in a phase of one run, and the learner of its worker."""

    root: Path
    base: Path
    adapter: Tensors
    events: list[tuple[WorkerEventKind, str]] = field(default_factory=list)
    figures: tuple[InboxFigures, ...] = ()
    wishes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        (self.root / "cache" / "models").mkdir(parents=True)
        (self.root / "cache" / "models" / NOTHING).symlink_to(self.base)
        (self.root / "clients").mkdir()
        write(self.root / "clients" / "client_0_cls.jsonl", OWN)
        self.store = EmbeddedStore()
        self.slot = claim_slot(self.state, "run-1")
        self.restart()

    @property
    def state(self) -> Path:
        return self.root / "state"

    def restart(self, config: IncrementalConfig = CONFIG) -> None:
        """Start a worker's learner, as after the end of an earlier one."""

        def on_figures(figures: tuple[InboxFigures, ...], wishes: tuple[str, ...]) -> None:
            self.figures, self.wishes = figures, wishes

        self.models = ModelCache(COMPUTE)
        self.learner = Learner(
            LearnerSettings(self.state, "run-1", "run", ("client_0",)),
            config,
            ClientData(self.root / "clients"),
            self.models,
            ModelSource(
                self.store.connect(), "run-1", self.root / "cache", lambda text, part: None
            ),
            self.slot,
            time.time,
            Callbacks(
                lambda kind, text: self.events.append((kind, text)),
                on_figures,
                lambda digest: None,
            ),
        )
        self.learner.start()

    def put(self, items: Sequence[Item]) -> None:
        with self.inbox() as inbox:
            inbox.put(items, "learn")

    def process_until(self, *kinds: WorkerEventKind) -> None:
        """Process the inbox until there is an event of one of these kinds."""
        before = len(self.events)

        def happened() -> bool:
            self.learner.process_inboxes(NEVER)
            return any(kind in kinds for kind, _ in self.events[before:])

        eventually(f"one of {kinds}: {self.events[before:]}", happened)

    def receive(
        self, version: int = 0, adapter: Tensors | None = None, **changed: Any
    ) -> TrainTask:
        """Note a version as a task does that brings it, and return the task."""
        received = self.task(version, **changed)
        self.learner.note_version(received, self.adapter if adapter is None else adapter)
        return received

    def task(self, version: int = 0, task_id: str = "t1", **changed: Any) -> TrainTask:
        return task(
            task_id,
            objective="classification",
            labels=LABELS,
            base_version=version,
            max_length=32,
            **changed,
        )

    def local_model(self) -> LocalModel | None:
        with self.learning_store() as store:
            return store.local_model("run-1")

    def learning_store(self) -> LearningStore:
        return LearningStore(schema.inbox_path(self.state, "client_0"))

    def inbox(self) -> Inbox:
        return Inbox(schema.inbox_path(self.state, "client_0"), CONFIG)

    def counts(self) -> dict[str, int]:
        with self.inbox() as inbox:
            return {state: count for state, count in inbox.counts().items() if count}


def classifier_harness(root: Path, base: Path) -> LearnerHarness:
    found = objective_model.load_for_objective("classification", base, LABELS, COMPUTE.device)
    adapter = lora.read_adapter(lora.attach(found.model, task().lora, seed=7))
    return LearnerHarness(root, base, adapter)


def same(one: Tensors, other: Tensors) -> bool:
    return all(np.allclose(one[name], other[name], atol=1e-6) for name in one)


def plus(one: Tensors, other: Tensors) -> Tensors:
    return {name: one[name] + other[name] for name in one}
