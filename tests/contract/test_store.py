"""Contract of `common.store`, on the embedded store and on a real Redis."""

from __future__ import annotations

import hashlib
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from common.errors import StoreError
from common.protocol import commands
from common.protocol.commands import Command, CommandName, CommandReply
from common.protocol.feed import Event
from common.protocol.heartbeat import Heartbeat
from common.protocol.membership import Membership
from common.protocol.tasks import Receipt
from common.protocol.versions import VersionSummary
from common.protocol.wire import pack, unpack
from common.store import heartbeats, view
from common.store.embedded import EmbeddedStore
from common.store.heartbeats import MAX_WORKERS_PER_SITE
from common.store.store import (
    CHUNK,
    FEED_LENGTH,
    HEARTBEAT_TTL_S,
    Store,
    connect,
)
from common.store.view import ClientRow, QueueRow, RunInfo

SHA = "0" * 64


class Opened:
    """A store, and a plain client of the same server to check its keys."""

    def __init__(self, store: Store, client: Any) -> None:
        self.store, self.client = store, client


@pytest.fixture(params=["embedded", pytest.param("redis", marks=pytest.mark.servers)])
def opened(request: pytest.FixtureRequest) -> Iterator[Opened]:
    if request.param == "redis":
        url = request.getfixturevalue("redis_server").url
        with redis.Redis.from_url(url) as client:
            yield Opened(connect(url), client)
        return
    with EmbeddedStore() as embedded, redis.Redis.from_url(embedded.url) as client:
        yield Opened(embedded.connect(), client)


@pytest.fixture
def store(opened: Opened) -> Store:
    return opened.store


@pytest.fixture
def run() -> str:
    return uuid.uuid4().hex


def event(text: str) -> Event:
    return Event(at=1.0, level="info", kind="test", text=text)


def heartbeat(worker: str, site: str = "local") -> Heartbeat:
    return Heartbeat(worker_id=worker, site=site, state="waiting")


# blobs


@pytest.mark.parametrize("size", [0, 1, CHUNK, CHUNK + 1])
def test_a_blob_of_any_size_is_found_by_its_digest(store: Store, run: str, size: int) -> None:
    data = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    sha = hashlib.sha256(data).hexdigest()
    assert store.get_blob(run, sha, size) is None
    assert not store.has_blob(run, sha)
    store.put_blob(run, data)
    store.put_blob(run, data)
    assert store.has_blob(run, sha)
    assert store.get_blob(run, sha, size) == data
    store.drop_blob(run, sha, size)
    assert store.get_blob(run, sha, size) is None


def test_a_blob_with_a_missing_chunk_is_not_found(opened: Opened, run: str) -> None:
    data = b"x" * (CHUNK + 1)
    sha = hashlib.sha256(data).hexdigest()
    opened.store.put_blob(run, data)
    opened.client.delete(f"fccl:{run}:blob:{sha}:1")
    assert opened.store.get_blob(run, sha, len(data)) is None


def test_a_corrupt_blob_is_an_error_and_never_data(opened: Opened, run: str) -> None:
    sha = hashlib.sha256(b"right").hexdigest()
    opened.client.set(f"fccl:{run}:blob:{sha}:0", b"wrong")
    with pytest.raises(StoreError, match="corrupt"):
        opened.store.get_blob(run, sha, 5)


def test_a_blob_is_published_and_read_in_chunks(opened: Opened, run: str) -> None:
    data = bytes(CHUNK) + b"end"
    sha = hashlib.sha256(data).hexdigest()
    opened.store.put_chunk(run, sha, 0, data[:CHUNK], 60)
    assert not opened.store.renew_chunk(run, sha, 1, 60)
    chunks = opened.store.get_chunks(run, sha, len(data))
    assert next(chunks) == data[:CHUNK]
    with pytest.raises(StoreError, match=r"chunk 1 .* is missing"):
        next(chunks)
    opened.store.put_chunk(run, sha, 1, b"longer", 60)
    with pytest.raises(StoreError, match=r"chunk 1 .* of another size"):
        list(opened.store.get_chunks(run, sha, len(data)))
    opened.store.put_chunk(run, sha, 1, b"end", 60)
    assert list(opened.store.get_chunks(run, sha, len(data), first=1)) == [b"end"]
    assert opened.store.get_blob(run, sha, len(data)) == data
    assert opened.store.renew_chunk(run, sha, 1, 6000)
    assert opened.client.ttl(f"fccl:{run}:blob:{sha}:1") > 60


def test_an_empty_blob_has_one_empty_chunk(opened: Opened, run: str) -> None:
    sha = hashlib.sha256(b"").hexdigest()
    opened.store.put_chunk(run, sha, 0, b"", 60)
    assert list(opened.store.get_chunks(run, sha, 0)) == [b""]


def test_a_blob_has_the_time_to_live_that_was_set(opened: Opened, run: str) -> None:
    opened.store.put_blob(run, b"data", ttl_s=60)
    opened.store.put_blob(run, b"kept")
    keys = {
        name: f"fccl:{run}:blob:{hashlib.sha256(name).hexdigest()}:0" for name in (b"data", b"kept")
    }
    assert 55 <= opened.client.ttl(keys[b"data"]) <= 60
    assert opened.client.ttl(keys[b"kept"]) == -1


# heartbeats and receipts


def test_a_heartbeat_expires_on_the_servers_clock(opened: Opened, run: str) -> None:
    opened.store.put_heartbeat(run, heartbeat("w1"))
    ttl = opened.client.ttl(f"fccl:{run}:heartbeat:local:w1")
    assert HEARTBEAT_TTL_S - 5 <= ttl <= HEARTBEAT_TTL_S


def test_live_workers_are_listed_by_name(store: Store, run: str) -> None:
    for worker in ("w2", "w1", "w3"):
        store.put_heartbeat(run, heartbeat(worker))
    store.put_heartbeat("another-run", heartbeat("w4"))
    store.remove_heartbeat(run, "local", "w3")
    assert [beat.worker_id for beat in store.heartbeats(run)] == ["w1", "w2"]
    assert store.heartbeats("no-run") == ()


def test_a_heartbeat_that_does_not_parse_is_left_out(opened: Opened, run: str) -> None:
    opened.store.put_heartbeat(run, heartbeat("w1"))
    opened.client.set(f"fccl:{run}:heartbeat:local:evil", b"\xff" * 100)
    assert [beat.worker_id for beat in opened.store.heartbeats(run)] == ["w1"]


def test_a_heartbeat_that_does_not_match_its_key_is_left_out(opened: Opened, run: str) -> None:
    opened.store.put_heartbeat(run, heartbeat("w1"))
    for key in ("hospital-b:w1", "local:w2", "local:w1:x"):
        opened.client.set(f"fccl:{run}:heartbeat:{key}", pack(heartbeat("w1")))
    assert len(opened.store.heartbeats(run)) == 1


def test_the_number_of_workers_of_a_site_is_limited(opened: Opened, run: str) -> None:
    for i in range(MAX_WORKERS_PER_SITE + 5):
        opened.store.put_heartbeat(run, heartbeat(f"w{i:03d}"))
    opened.client.set(f"fccl:{run}:heartbeat:hospital-a:big", b"x" * (1 << 20))
    assert len(opened.store.heartbeats(run)) == MAX_WORKERS_PER_SITE


def test_a_flood_of_keys_costs_a_bounded_number_of_requests_and_hides_no_other_site(
    opened: Opened, run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeats, "SCAN_KEYS", 400)
    monkeypatch.setattr(heartbeats, "SCAN_COUNT", 100)
    flood = {f"fccl:{run}:heartbeat:evil:w{i}": b"x" for i in range(5000)}
    opened.client.mset(flood)
    opened.store.put_heartbeat(run, heartbeat("w1"))
    reader, calls = opened.store.heartbeat_reader(run), list[int]()
    do = reader._do
    reader._do = lambda call: calls.append(1) or do(call)  # type: ignore[func-returns-value]
    [found] = reader.read(["local"])  # by its index, whatever else the server holds
    assert found.worker_id == "w1" and len(calls) <= 4 + 3
    assert reader.crowded == {"evil"}
    opened.client.delete(*flood)


def test_workers_of_earlier_releases_are_found_without_an_index(opened: Opened, run: str) -> None:
    for worker in ("w1", "w2"):
        key = f"fccl:{run}:heartbeat:hospital-a:{worker}"
        opened.client.set(key, pack(heartbeat(worker, site="hospital-a")))
    reader = opened.store.heartbeat_reader(run)
    assert [beat.worker_id for beat in reader.read()] == ["w1", "w2"]
    opened.client.delete(f"fccl:{run}:heartbeat:hospital-a:w1")
    assert [beat.worker_id for beat in reader.read()] == ["w2"]
    assert reader.crowded == frozenset()


def test_only_so_many_bytes_of_a_site_are_read(
    opened: Opened, run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(10):
        opened.store.put_heartbeat(run, heartbeat(f"w{i}"))
    opened.client.lpush(f"fccl:{run}:heartbeat:local:list", "no string")
    size = len(pack(heartbeat("w0")))
    monkeypatch.setattr(heartbeats, "MAX_SITE_BYTES", 4 * size)
    reader = opened.store.heartbeat_reader(run)
    assert len(reader.read()) == 4 and reader.crowded == {"local"}


def test_a_site_can_read_whether_its_client_takes_part(store: Store, run: str) -> None:
    membership = Membership(client_id="hospital-a", state="refused", nonce=3, reason="no rows")
    assert store.get_membership(run, "hospital-a", "hospital-a") is None
    store.put_membership(run, "hospital-a", membership)
    assert store.get_membership(run, "hospital-a", "hospital-a") == membership
    assert store.get_membership(run, "hospital-b", "hospital-a") is None


def test_a_request_to_join_and_its_answer_can_be_read(store: Store, run: str) -> None:
    assert store.get_join_request(run) is None and store.get_join_answer(run) is None
    store.put_join_request(run, b"may I?")
    store.put_join_answer(run, b"yes")
    assert store.get_join_request(run) == b"may I?"
    assert store.get_join_answer(run) == b"yes"


def test_commands_stay_in_order_until_they_are_dropped(store: Store, run: str) -> None:
    actions: tuple[CommandName, ...] = ("pause", "resume", "stop")
    sent = [commands.send(store, run, action) for action in actions]
    assert [unpack(Command, raw)[0] for raw in store.commands(run)] == sent
    commands.withdraw(store, run, sent[1])
    store.drop_commands(run, 1)
    assert [unpack(Command, raw)[0] for raw in store.commands(run)] == [sent[2]]
    assert commands.read_reply(store, run, sent[0].command_id) is None
    done = CommandReply(command_id=sent[0].command_id, state="done")
    store.put_reply(run, done.command_id, pack(done))
    assert commands.read_reply(store, run, done.command_id) == done


def test_a_command_with_an_invalid_target_is_not_sent(store: Store, run: str) -> None:
    with pytest.raises(ValueError, match="target"):
        commands.send(store, run, "kick", "client 0\n")
    assert store.commands(run) == []


def test_the_time_is_the_servers(store: Store) -> None:
    assert store.server_time() == pytest.approx(time.time(), abs=60)


def test_a_receipt_is_found_by_its_task(store: Store, run: str) -> None:
    receipt = Receipt(task_id="t1", attempt=1, state="accepted")
    assert store.get_receipt(run, "local", "t1") is None
    store.put_receipt(run, "local", receipt)
    assert store.get_receipt(run, "local", "t1") == receipt


# pointers and tables


def test_a_name_points_at_its_newest_run(store: Store, run: str) -> None:
    assert store.get_run(run) is None
    store.set_run(run, "first")
    store.set_run(run, "second")
    assert store.get_run(run) == "second"


def test_the_version_is_none_until_it_is_published(store: Store, run: str) -> None:
    assert store.get_version(run) is None
    store.set_version(run, 12)
    assert store.get_version(run) == 12


def test_a_table_is_replaced_as_a_whole(store: Store, run: str) -> None:
    store.put_table(run, "clients", {"a": b"1", "b": b"2"})
    store.put_table(run, "clients", {"c": b"3"})
    assert store.read_status(run)["clients"] == {b"c": b"3"}
    store.put_table(run, "clients", {})
    assert store.read_status(run)["clients"] == {}


# the feed


def test_the_feed_is_bounded(opened: Opened, run: str) -> None:
    for _ in range(3):
        opened.store.append_events(run, [event("x")] * FEED_LENGTH)
    assert opened.client.xlen(f"fccl:{run}:events") < 2 * FEED_LENGTH


# the view


def info(run: str) -> RunInfo:
    return RunInfo(
        run=run, name="n", status="running", version=2, total_versions=8, phase=0, phases=("sft",),
        clients=1, buffered=0, buffer_size=2, open_tasks=1, accepted=4, rejected=0, started_at=1.0,
        updated_at=2.0, max_staleness=20,
    )  # fmt: skip


def test_the_view_has_everything_that_was_published(store: Store, run: str) -> None:
    store.set_run(run, run)
    store.set_info(run, pack(info(run)))
    for version in (10, 9, 2):
        summary = VersionSummary(version=version, phase=0, at=1.0, sha256=SHA, nbytes=1)
        store.put_summaries(run, [(version, summary.model_dump_json())])
    row = ClientRow(client_id="c0", site="local", rows=9, issued=1, participation=0)
    store.put_table(run, "clients", {"c0": pack(row)})
    store.put_table(run, "queues", {"q": pack(QueueRow(queue="q", messages=1, consumers=2))})
    store.put_heartbeat(run, heartbeat("w1"))
    store.append_events(run, [event("one"), event("two")])
    seen = view.read(store, run)
    assert seen.info == info(run)
    assert seen.clients == (row,)
    assert [v.version for v in seen.versions] == [2, 9, 10]
    assert [e.text for e in seen.events] == ["one", "two"]
    assert [(q.queue, q.messages) for q in seen.queues] == [("q", 1)]
    assert [w.worker_id for w in seen.workers] == ["w1"]
    assert seen.fields()["clients"][0]["rows"] == 9


def test_a_reader_decodes_only_what_has_changed(store: Store, run: str) -> None:
    def publish(version: int) -> None:
        summary = VersionSummary(version=version, phase=0, at=1.0, sha256=SHA, nbytes=1)
        store.put_summaries(run, [(version, summary.model_dump_json())])

    store.set_run(run, run)
    store.set_info(run, pack(info(run)))
    publish(0)
    store.append_events(run, [event(str(i)) for i in range(30)])
    reader = view.ViewReader(run, events=25)
    first = reader.read(store)
    assert [e.text for e in first.events] == [str(i) for i in range(5, 30)]
    again = reader.read(store)
    assert again.versions is first.versions and again.events is first.events
    publish(1)
    store.append_events(run, [event("new")])
    later = reader.read(store)
    assert [v.version for v in later.versions] == [0, 1]
    assert later.versions[0] is first.versions[0]
    assert later.events[:-1] == first.events[1:] and later.events[0] is first.events[1]
    assert later.events[-1].text == "new"


def test_a_reader_forgets_the_run_that_had_the_name_before(store: Store, run: str) -> None:
    reader = view.ViewReader(run)
    for name in (run, f"{run}2"):
        store.set_info(name, pack(info(name)))
        store.append_events(name, [event(name)])
        store.set_run(run, name)
        assert [e.text for e in reader.read(store).events] == [name]


def test_an_unknown_run_is_an_error(store: Store, run: str) -> None:
    with pytest.raises(view.RunNotFound):
        view.read(store, run)
    store.set_run(run, run)  # a pointer without a status
    with pytest.raises(view.RunNotFound):
        view.read(store, run)


@pytest.mark.parametrize("part", ["info", "summary"])
def test_a_status_of_another_protocol_is_an_error_in_one_line(
    store: Store, run: str, part: str
) -> None:
    store.set_run(run, run)
    store.set_info(run, b"FCCL\x09....." if part == "info" else pack(info(run)))
    if part == "summary":
        store.put_summaries(run, [(1, '{"version": 1, "new": true}')])
    with pytest.raises(StoreError, match="upgrade fccl") as caught:
        view.read(store, run)
    assert "\n" not in str(caught.value)


# unreachable


@pytest.mark.parametrize(
    "url",
    [
        "redis://:hunter2@127.0.0.1:1/0",
        "redis://user:hunter2@127.0.0.1:1/0",
        "redis://127.0.0.1:1/0?password=hunter2",
        "redis://:hun/ter2@127.0.0.1:1/0",
        "http://:hunter2@127.0.0.1:1/0",
    ],
)
def test_the_error_of_an_unreachable_store_is_one_line_without_the_password(url: str) -> None:
    with pytest.raises(StoreError, match=r"store\.url") as caught:
        connect(url)
    assert "hun" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is None and caught.value.__suppress_context__


def test_the_error_of_a_lost_store_has_its_address() -> None:
    class Gone:
        def __getattr__(self, _: str) -> Any:
            raise redis.TimeoutError("secret")

    gone = Store(Gone(), "host:1")
    with pytest.raises(StoreError, match=r"host:1 does not answer \(TimeoutError\)"):
        gone.get_version("run")
