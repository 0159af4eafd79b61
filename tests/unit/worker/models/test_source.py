"""Tests of the source of adapters: those whose factors A are frozen travel without them."""

from __future__ import annotations

from pathlib import Path
from threading import Event

import numpy as np
import pytest

from common.errors import WireError
from common.protocol import codec
from common.protocol.adapter_form import AdapterForm, frozen_part
from common.protocol.adapter_frame import pack_adapter
from common.protocol.layout import TensorLayout
from common.protocol.tensors import Tensors
from common.store.embedded import EmbeddedStore
from common.store.store import Store
from tests.support.worker_records import task
from worker.models.source import ModelSource

RUN = "run-1"
FACTORS: Tensors = {
    "x.lora_A.weight": np.ones((2, 3), np.float32),
    "x.lora_B.weight": np.full((4, 2), 2, np.float32),
}


@pytest.fixture
def store() -> Store:
    return EmbeddedStore().connect()


def put(store: Store, version: int, tensors: Tensors) -> dict[str, object]:
    """Publish a frame and return its reference."""
    frame = pack_adapter(version, "fp32", tensors)
    store.put_blob(RUN, frame)
    return {"sha256": codec.digest(frame), "nbytes": len(frame)}


def source(store: Store, cache: Path) -> ModelSource:
    store.set_version(RUN, 0)
    return ModelSource(store, RUN, cache, lambda message, fraction: None)


def test_frozen_factors_are_fetched_once_and_put_into_every_version(
    store: Store, tmp_path: Path
) -> None:
    sent = AdapterForm(frozen=True).of(FACTORS)
    frozen = put(store, 0, frozen_part(FACTORS))
    layout = TensorLayout.of(sent).digest
    own = source(store, tmp_path)
    for number in (1, 2):
        wanted = task(
            adapter=put(store, number, sent), base_version=number, layout=layout, frozen=frozen
        )
        found = own.fetch_adapter(wanted, Event())
        assert found is not None
        assert list(found) == sorted(FACTORS)
        store.drop_blob(RUN, str(frozen["sha256"]), int(str(frozen["nbytes"])))


def test_a_frame_of_frozen_factors_can_hold_nothing_else(store: Store, tmp_path: Path) -> None:
    sent = AdapterForm(frozen=True).of(FACTORS)
    wanted = task(adapter=put(store, 0, sent), frozen=put(store, 0, FACTORS))
    with pytest.raises(WireError, match="no factor that can be frozen"):
        source(store, tmp_path).fetch_adapter(wanted, Event())


def test_a_frozen_factor_that_travels_nevertheless_is_an_error(
    store: Store, tmp_path: Path
) -> None:
    wanted = task(adapter=put(store, 0, FACTORS), frozen=put(store, 0, frozen_part(FACTORS)))
    with pytest.raises(WireError, match="travels with the adapter"):
        source(store, tmp_path).fetch_adapter(wanted, Event())
