"""A base model travels through the store: published in chunks, fetched and checked by a worker."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.errors import StoreError
from common.model_cache import find_installed
from common.protocol import codec
from common.protocol.heartbeat import Heartbeat
from common.protocol.manifest import make_manifest, parse_manifest
from common.protocol.tasks import BaseRef
from common.store.embedded import EmbeddedStore
from common.store.store import CHUNK, ServerInfo, Store, connect
from coordinator.publish.base_model_server import RENEW_S, TTL_S, BaseModelServer
from tests.support.tiny_model import write_sharded_model
from worker.models.base_source import BaseModelSource

RUN = "run-1"


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model in four shards, one of which has several chunks."""
    folder = write_sharded_model(tmp_path_factory.mktemp("model") / "sharded")
    (folder / "merges.txt").write_bytes(b"x" * (2 * CHUNK + 5))
    return folder


@pytest.fixture(params=["embedded", pytest.param("redis", marks=pytest.mark.servers)])
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    if request.param == "redis":
        found = connect(request.getfixturevalue("redis_server").url)
        yield found
        if keys := found.execute("KEYS", f"fccl:{RUN}:*"):
            found.execute("DEL", *(key.decode() for key in keys))
        return
    with EmbeddedStore() as embedded:
        yield embedded.connect()


def digest_of(path: Path) -> str:
    return codec.digest(make_manifest(path))


def ref_of(path: Path) -> BaseRef:
    return BaseRef(name=str(path), kind="local", digest=digest_of(path))


def request_of(digest: str) -> Heartbeat:
    return Heartbeat(worker_id="w", site="local", state="fetching", wants=digest)


def source_of(store: Store, cache: Path) -> BaseModelSource:
    return BaseModelSource(store, RUN, cache, lambda message, fraction: None)


def ignore(digest: str | None) -> None:
    pass


def publish(store: Store, path: Path) -> BaseModelServer:
    server = BaseModelServer(store, RUN, path, digest_of(path))
    server.answer([request_of(digest_of(path))])
    server.wait()
    assert server.new_problem() == ""
    return server


def test_a_sharded_model_travels_through_the_store(
    store: Store, sharded: Path, tmp_path: Path
) -> None:
    publish(store, sharded)
    path = source_of(store, tmp_path).find(ref_of(sharded), ignore, threading.Event())
    assert path == find_installed(digest_of(sharded), tmp_path)
    assert make_manifest(path) == make_manifest(sharded)


def test_a_chunk_that_is_lost_on_the_way_is_fetched_later(
    store: Store, sharded: Path, tmp_path: Path
) -> None:
    publish(store, sharded)
    [merges] = [f for f in parse_manifest(make_manifest(sharded)) if f.name == "merges.txt"]
    store.execute("DEL", f"fccl:{RUN}:blob:{merges.sha256}:1")
    source = source_of(store, tmp_path)
    with pytest.raises(StoreError, match="chunk 1"):
        source.find(ref_of(sharded), ignore, threading.Event())
    publish(store, sharded)
    path = source.find(ref_of(sharded), ignore, threading.Event())
    assert path is not None and make_manifest(path) == make_manifest(sharded)


def test_a_worker_that_is_stopped_continues_its_download(
    store: Store, sharded: Path, tmp_path: Path
) -> None:
    publish(store, sharded)
    stop, fractions = threading.Event(), []

    def interrupt(message: str, fraction: float) -> None:
        fractions.append(fraction)
        if fraction > 0.3:
            stop.set()

    source = BaseModelSource(store, RUN, tmp_path, interrupt)
    assert source.find(ref_of(sharded), ignore, stop) is None
    assert find_installed(digest_of(sharded), tmp_path) is None
    assert any((tmp_path / "models" / f".part-{digest_of(sharded)}").iterdir())
    path = source_of(store, tmp_path).find(ref_of(sharded), ignore, threading.Event())
    assert path is not None and make_manifest(path) == make_manifest(sharded)


def test_files_stay_as_long_as_a_worker_requests_them(store: Store, sharded: Path) -> None:
    now = 100.0
    digest = digest_of(sharded)
    server = BaseModelServer(store, RUN, sharded, digest, lambda: now)
    server.answer([request_of(digest)])
    server.wait()
    file = parse_manifest(make_manifest(sharded))[0]
    key = f"fccl:{RUN}:blob:{file.sha256}:0"
    store.execute("EXPIRE", key, "5")
    server.answer([request_of(digest)])  # too early to renew
    server.wait()
    assert store.execute("TTL", key) <= 5
    now += RENEW_S
    server.answer([])  # no worker requests it
    server.wait()
    assert store.execute("TTL", key) <= 5
    server.answer([request_of(digest)])
    server.wait()
    assert store.execute("TTL", key) > TTL_S - 30


def test_a_store_that_lost_the_files_gets_them_again(store: Store, sharded: Path) -> None:
    server = publish(store, sharded)
    for key in store.execute("KEYS", f"fccl:{RUN}:blob:*"):
        store.execute("DEL", key.decode())
    server.answer([request_of(digest_of(sharded))])
    server.wait()
    assert store.has_blob(RUN, digest_of(sharded))


def test_a_base_whose_files_were_changed_is_not_sent(store: Store, tmp_path: Path) -> None:
    folder = write_sharded_model(tmp_path / "model")
    digest = digest_of(folder)
    (folder / "config.json").write_text("{}")
    server = BaseModelServer(store, RUN, folder, digest)
    server.answer([request_of(digest)])
    server.wait()
    assert "have changed since the run began" in server.new_problem()
    assert store.execute("KEYS", f"fccl:{RUN}:blob:*") == []


def test_a_base_that_does_not_fit_into_redis_is_reported_and_not_sent(
    store: Store, sharded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = ServerInfo(version="8", used=1 << 20, limit=9 << 20, policy="noeviction")
    monkeypatch.setattr(store, "server_info", lambda: info)
    server = BaseModelServer(store, RUN, sharded, digest_of(sharded))
    server.answer([request_of(digest_of(sharded))])
    server.wait()
    assert "does not fit into Redis, which uses 1 of 9 MiB" in server.new_problem()
    assert store.execute("KEYS", f"fccl:{RUN}:blob:*") == []


def test_a_store_that_is_out_of_reach_while_files_are_published_is_reported(
    store: Store, sharded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object) -> None:
        raise StoreError("out of memory")

    monkeypatch.setattr(store, "put_chunk", refuse)
    server = BaseModelServer(store, RUN, sharded, digest_of(sharded))
    server.answer([request_of(digest_of(sharded))])
    server.wait()
    assert "cannot be sent to workers: out of memory" in server.new_problem()
