"""Incremental learning in runs with the aggregation rules `ffa` and `product`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from common.protocol import codec
from common.protocol.adapter_form import AdapterForm, is_frozen
from common.protocol.adapter_frame import pack_adapter
from common.protocol.tasks import BlobRef, LoraSpec
from common.protocol.wire import pack
from tests.support.incremental import NEVER, LearnerHarness, classifier_harness, film_items
from tests.support.tiny_encoder import encoder, saved
from worker.events import WorkerEventKind
from worker.incremental.serving.client_model import load_client_model
from worker.incremental.serving.newest_version import model_of

LEARNED, REBASED = WorkerEventKind.LEARNED, WorkerEventKind.REBASED


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(encoder(layers=2), tmp_path_factory.mktemp("base"))


@pytest.fixture
def harness(tmp_path: Path, base: Path) -> LearnerHarness:
    return classifier_harness(tmp_path, base)


@pytest.mark.slow
def test_frozen_factors_are_not_learned(harness: LearnerHarness) -> None:
    harness.receive(frozen=BlobRef(sha256="1" * 64, nbytes=1))
    harness.put(film_items("good", "dull"))
    harness.process_until(LEARNED)
    local = harness.local_model()
    assert local is not None
    changed = {name for name, tensor in local.parts["unsent"].items() if tensor.any()}
    assert changed == {name for name in harness.adapter if not is_frozen(name)}


def test_items_are_learned_anew_on_a_version_with_factors_of_its_own(
    harness: LearnerHarness,
) -> None:
    harness.receive(refactored="equal")
    harness.put(film_items("good", "dull"))
    harness.process_until(LEARNED)
    harness.receive(1, harness.adapter, refactored="equal")  # where moving it would do
    harness.process_until(REBASED)
    local = harness.local_model()
    assert local is not None and local.version == 1
    assert harness.counts() == {"learned": 12}


def test_a_client_of_a_lower_rank_learns_at_its_rank_and_answers_with_it(
    harness: LearnerHarness,
) -> None:
    store = harness.store.connect()
    frame = pack_adapter(0, "fp32", harness.adapter)
    whole = harness.task(
        adapter=BlobRef(sha256=codec.digest(frame), nbytes=len(frame)), refactored="mixed"
    )
    store.put_blob("run-1", frame)
    store.set_model("run-1", pack(model_of(whole)))
    store.set_version("run-1", 0)
    harness.put(film_items("good", "dull"))
    harness.learner.process_inboxes(NEVER)
    assert harness.counts() == {"waiting": 12}  # its rank is not known yet
    own = AdapterForm(rank=1).of(harness.adapter)
    lora = LoraSpec(r=1, alpha=2)
    received = harness.receive(0, own, lora=lora, refactored="mixed")
    harness.process_until(LEARNED)
    start = harness.learner.prepare_task(received, harness.base, own, NEVER)
    assert start.unsent is not None
    shapes = {name: tensor.shape for name, tensor in own.items()}
    assert {name: tensor.shape for name, tensor in start.unsent.items()} == shapes
    found = load_client_model(harness.state, "client_0")
    assert found.local and found.model.lora is not None
    assert (found.model.lora.r, found.model.lora.alpha) == (1, 2)
    assert np.isfinite(next(iter(found.adapter.values()))).all()
