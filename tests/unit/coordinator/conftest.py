"""Fixtures of the coordinator's tests."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from broker.chunks import parse_chunk
from coordinator.ingest import ingest
from tests.support.polled_federation import CHUNK, PolledFederation


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the coordinator expect chunks of a few hundred bytes."""
    monkeypatch.setattr(ingest, "parse_chunk", partial(parse_chunk, chunk_bytes=CHUNK))


@pytest.fixture
def federation(tmp_path: Path, small_chunks: None) -> PolledFederation:
    return PolledFederation(tmp_path)
