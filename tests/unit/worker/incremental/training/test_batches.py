"""Composition of a batch: old rows, anchors, and what the gate measures on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from common.config.config import IncrementalConfig
from common.protocol.tensors import Tensors
from learning.data.row_types import LabelledText
from learning.data.rows import write
from learning.evaluation.measurement import Measurement
from learning.models import lora
from learning.training.device import Compute
from tests.support.tiny_encoder import encoder, saved
from tests.support.worker_records import NOTHING, task
from worker.data.shards import ClientData
from worker.incremental.inbox import schema
from worker.incremental.inbox.inbox import Inbox
from worker.incremental.inbox.items import Item
from worker.incremental.inbox.learning_store import LearningStore
from worker.incremental.report.history import BatchRecord
from worker.incremental.serving.newest_version import model_of
from worker.incremental.training import batches
from worker.incremental.training.batches import BatchBuilder, ClientContext, LearningBatch
from worker.incremental.training.evaluation import evaluate
from worker.incremental.training.gate import BatchRejectionKind
from worker.incremental.training.shadow import ShadowModel
from worker.models.loaded import ModelCache

LABELS = ("bad", "fine")
CONFIG = IncrementalConfig(
    batch_size=4, steps=4, max_norm=9.0
)  # two of four are old: eight old rows in all
DULL, BRIGHT, SLOW = 14, 15, 16  # ids of the first words of texts, which tell where they are from
WORDS = ("a", "good", "bad", "film", "plot", "was", "it", "and", "not", "very", "dull", "bright")


def texts(first: str, count: int) -> list[LabelledText]:
    """Distinct texts, half of each class."""
    pairs = [f"{first} {one} {other}" for one in WORDS for other in WORDS]
    return [LabelledText(text, LABELS[i % 2]) for i, text in enumerate(pairs[:count])]


class Client:
    """A client with rows of its own, a model and an inbox."""

    def __init__(self, root: Path) -> None:
        (root / "clients").mkdir()
        write(root / "clients" / "client_0_cls.jsonl", texts("slow", 140))
        self.path = schema.inbox_path(root, "client_0")
        model = model_of(task(objective="classification", labels=LABELS, max_length=32))
        base = saved(encoder(layers=2), root / "base")
        models = ModelCache(Compute(torch.device("cpu"), threads=1, autocast=False))
        loaded = models.load("classification", base, NOTHING, model.lora, LABELS)
        self.adapter: Tensors = lora.read_adapter(loaded.model)
        self.store = LearningStore(self.put("", ()))
        shadow = ShadowModel(loaded, model, CONFIG, autocast=False)
        data = ClientData(root / "clients")
        context = ClientContext("client_0", self.store, shadow, model, self.adapter)
        self.builder = BatchBuilder(context, data, CONFIG)

    def put(self, name: str, rows: Sequence[LabelledText]) -> Path:
        with Inbox(self.path, CONFIG) as inbox:
            inbox.put(
                [Item("cls", {"text": r.text, "label": r.label}, name) for r in rows], "learn"
            )
        return self.path

    def learned(self, name: str, rows: Sequence[LabelledText], held: int) -> None:
        """Add items of an accepted batch, the first of them held out."""
        self.put(name, rows)
        ids = [stored.id for stored in self.store.items("waiting")]
        batch = BatchRecord(
            0, "run-1", 0, "cls", name, 0.0, len(ids), held, 1, 0.0, "accepted", "", {}
        )
        self.store.accept(batch, ids[held:], ids[:held], self.adapter, self.adapter, {})

    def build(self) -> LearningBatch:
        return self.builder.build(self.store.items("waiting"), self.adapter, split=True)


@pytest.fixture
def client(tmp_path: Path) -> Client:
    return Client(tmp_path)


def test_old_rows_are_balanced_over_the_classes_of_each_task(client: Client) -> None:
    first, then = texts("bright", 12), texts("dull", 4)
    client.learned("first", first, held=0)
    client.learned("then", then, held=0)
    client.put("new", texts("not", 10))
    (training,) = client.build().training_sets
    found = Counter((example.input_ids[1], example.label) for example in training.old)
    assert len(training.old) == 8
    assert min(found.values()) == 1 and max(found.values()) == 2  # eight over six groups
    assert {word for word, _ in found} == {BRIGHT, DULL, SLOW} and len(found) == 6


def test_the_anchors_include_every_task(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "HOLDOUT_EXAMPLES", 4)
    first, then = texts("bright", 6), texts("dull", 20)
    client.learned("first", first, held=2)
    client.learned("then", then, held=10)
    client.put("new", texts("not", 10))
    batch = client.build()
    assert [len(each.examples) for each in batch.task_sets] == [0]  # none of this task is known
    (anchors,) = batch.anchor_sets
    words = [example.input_ids[1] for example in anchors.examples]
    assert (words.count(BRIGHT), words.count(DULL)) == (2, 2)  # of 2 and of 10
    assert words.count(SLOW) > 4  # the client's own holdout, as whole as it is


def test_new_items_are_measured_on_earlier_held_out_items_of_their_task(client: Client) -> None:
    client.learned("first", texts("bright", 6), held=2)
    client.learned("then", texts("dull", 20), held=10)
    client.put("first", texts("not", 10))
    (known,) = client.build().task_sets
    assert [example.input_ids[1] for example in known.examples] == [BRIGHT, BRIGHT]


class Curve:
    """Model with one parameter x: the loss is 2 − x on new items and a curve of x on anchors."""

    def __init__(self, anchors: Callable[[float], float]) -> None:
        self._anchors, self.seen = anchors, list[float]()

    def measure(self, adapter: Tensors, sets: Sequence[object]) -> Measurement:
        x = float(adapter["x"][0])
        self.seen += [x] if sets else []
        return Measurement(self._anchors(x) if sets == ("anchors",) else 2 - x)


@pytest.mark.parametrize(
    ("anchors", "share", "rejected"),
    [
        (lambda x: 1 + 0.01 * x, 1.0, None),
        (lambda x: 1 + 0.06 * x**2, 0.5, None),  # 1.06, then 1.015: the limit is 1.02
        (lambda x: 1 + 0.3 * x, 1.0, BatchRejectionKind.FORGETTING),
    ],
    ids=["whole", "half", "nothing"],
)
def test_the_largest_share_that_passes_the_gate_is_kept(
    anchors: Callable[[float], float], share: float, rejected: BatchRejectionKind | None
) -> None:
    shadow: Any = Curve(anchors)
    sets: Any = ("new",), ("anchors",)
    batch = LearningBatch((), (), (), *sets, ())
    theta, learned, before = ({"x": np.array([x])} for x in (0.0, 1.0, 100.0))
    found = evaluate(shadow, CONFIG, batch, theta, learned, [before])
    rejection = found.rejection.kind if found.rejection else None
    assert (found.share, rejection) == (share, rejected)
    assert found.learned["x"] == found.after["x"] == share
    assert found.figures.new_after.loss == 2 - share
    assert found.figures.norm == 100 + share  # with what was learned before
    assert shadow.seen.count(0.0) == 2  # the old model is measured once on each set
