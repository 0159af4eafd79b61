"""The Redis store: workers write heartbeats; the coordinator publishes status and adapters.

Everything in it can be rebuilt (`docs/protocol.md` lists the keys and their writers). Every method
raises `StoreError` when Redis cannot be reached or refuses; callers decide what then stops working.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

import redis

from common.errors import StoreError, WireError
from common.protocol.feed import Event
from common.protocol.fields import Record
from common.protocol.heartbeat import Heartbeat
from common.protocol.membership import Membership
from common.protocol.run_plan import RunPlan
from common.protocol.tasks import Receipt
from common.protocol.versions import CurrentModel
from common.protocol.wire import pack, unpack
from common.store.errors import explain_redis_error
from common.store.heartbeats import (
    MAX_FRAME,
    HeartbeatReader,
    add_to_index,
    heartbeat_key,
    index_key,
)
from common.tls.verification import explain_unreadable_ca, verifying_context
from common.urls import STORE, UrlError, parse_url

CHUNK = 8 * 1024 * 1024
HEARTBEAT_TTL_S = 15
INDEX_TTL_S = 24 * 3600  # of the names of a site's workers
REFUSAL_TTL_S = 3600
RECEIPT_TTL_S = 24 * 3600  # a worker that asks later sends its update again, and is told then
DELIVERY_TTL_S = 7 * 24 * 3600
JOIN_TTL_S = 90 * 24 * 3600
FEED_LENGTH = 2000
MAX_COMMANDS = 100  # read at once
SUMMARIES_AT_ONCE = 200  # of versions, in one request
ANSWER_TTL_S = 24 * 3600

R = TypeVar("R", bound=Record)


@dataclass(frozen=True)
class ServerInfo:
    """What a Redis server reports about itself."""

    version: str
    used: int  # memory, bytes
    limit: int  # of the memory (`maxmemory`), bytes; 0 for none
    policy: str  # at the memory limit (`maxmemory-policy`)


T = TypeVar("T")


def connect(url: str, timeout_s: float = 3.0, ca: str | None = None) -> Store:
    """Connect to the store at a redis:// or rediss:// URL.

    Args:
        timeout_s: Limit for connecting and for each answer.
        ca: File of certificates (PEM) to verify a rediss:// server with; None uses the system's.

    Raises:
        StoreError: The store cannot be reached, its certificate is not trusted, the URL is not
            valid, or there are no certificates in `ca`.
        StoreAccessError: The store refuses the user or password.
    """
    try:
        server = parse_url(url, STORE)
    except UrlError as error:
        raise StoreError(f"store.url {error.what}", error.remedy) from None
    tls: dict[str, Any] = {}
    if ca and server.scheme == "rediss":
        try:
            verifying_context(ca)
        except OSError as error:
            raise StoreError(*explain_unreadable_ca(ca, error, "store")) from None
        tls["ssl_ca_certs"] = ca
    try:
        client = redis.Redis.from_url(
            url,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            retry=None,
            decode_responses=False,
            **tls,
        )
        store = Store(client, server.address + server.path.rstrip("/") * bool(server.host))
        store.ping()
    except (ValueError, TypeError, redis.RedisError):  # their text may repeat the password
        raise StoreError(
            "store.url has an option after its ? with a value that Redis's client refuses",
            f"write {STORE.example}",
        ) from None
    return store


class Store:
    """Typed access to one Redis, real or embedded; `where` is its host and port, for messages."""

    def __init__(self, client: Any, where: str) -> None:
        self._redis = client
        self.where = where

    def execute(self, *words: str) -> Any:
        """Run any command, for `common/store/acl.py` and `fccl doctor`."""
        return self._do(lambda r: r.execute_command(*words))

    def ping(self) -> None:
        self._do(lambda r: r.ping())

    def server_info(self) -> ServerInfo:
        info = self._do(lambda r: {**r.info("server"), **r.info("memory")})
        return ServerInfo(
            version=str(info.get("redis_version", "unknown")),
            used=int(info.get("used_memory", 0)),
            limit=int(info.get("maxmemory", 0)),
            policy=str(info.get("maxmemory_policy", "unknown")),
        )

    def server_time(self) -> float:
        """Return the server's time, seconds since the Unix epoch."""
        seconds, microseconds = self._do(lambda r: r.time())
        return float(seconds + microseconds / 1e6)

    # The run. A getter returns None as long as there is nothing.

    def set_run(self, name: str, run: str) -> None:
        """Point a run's name at its id."""
        self._set(f"fccl:run:{name}", run)

    def get_run(self, name: str) -> str | None:
        value = self._get(f"fccl:run:{name}")
        return None if value is None else value.decode()

    def set_info(self, run: str, info: bytes) -> None:
        """Publish the coordinator's status, a `common.store.view.RunInfo`."""
        self._set(f"fccl:{run}:info", info)

    def get_info(self, run: str) -> bytes | None:
        return self._get(f"fccl:{run}:info")

    def set_version(self, run: str, version: int) -> None:
        """Publish the newest version's number; readers keep the highest that they have seen."""
        self._set(f"fccl:{run}:version", version)

    def get_version(self, run: str) -> int | None:
        value = self._get(f"fccl:{run}:version")
        return None if value is None else int(value)

    def set_model(self, run: str, model: bytes) -> None:
        """Publish the description of the newest version, a `CurrentModel`."""
        self._set(f"fccl:{run}:model", model)

    def get_model(self, run: str) -> CurrentModel | None:
        return self._record(CurrentModel, f"fccl:{run}:model")

    def set_plan(self, run: str, plan: bytes) -> None:
        """Publish the run's plan for the people at the sites, a `RunPlan`."""
        self._set(f"fccl:{run}:plan", plan)

    def get_plan(self, run: str) -> RunPlan | None:
        return self._record(RunPlan, f"fccl:{run}:plan")

    def put_summaries(self, run: str, lines: Iterable[tuple[int, str]]) -> None:
        """Publish summaries of versions, a line of JSON for each number; they stay for good."""

        def write(r: Any) -> None:
            rest = iter(lines)
            while some := {str(n): line for n, line in islice(rest, SUMMARIES_AT_ONCE)}:
                r.hset(f"fccl:{run}:summaries", mapping=some)

        self._do(write)

    def summary_count(self, run: str) -> int:
        return int(self._do(lambda r: r.hlen(f"fccl:{run}:summaries")))

    # blobs: adapters and base-model files, addressed by content

    def put_blob(self, run: str, data: bytes, ttl_s: int | None = None) -> None:
        """Publish bytes under their SHA-256, in chunks; repeating it is harmless."""
        for i, key in enumerate(_chunk_keys(run, hashlib.sha256(data).hexdigest(), len(data))):
            self._set(key, data[i * CHUNK : (i + 1) * CHUNK], ttl_s)

    def get_blob(
        self,
        run: str,
        sha256: str,
        nbytes: int,
        before_chunk: Callable[[int], None] = lambda nbytes: None,
    ) -> bytes | None:
        """Return a blob whose bytes have this digest, or None while any part of it is missing.

        `before_chunk` is called before each request, with the number of bytes that it is for.
        """
        parts = []
        for index, key in enumerate(_chunk_keys(run, sha256, nbytes)):
            before_chunk(min(CHUNK, nbytes - index * CHUNK))
            part = self._get(key)
            if part is None:
                return None
            parts.append(part)
        data = b"".join(parts)
        if hashlib.sha256(data).hexdigest() != sha256:
            raise StoreError(f"blob {sha256[:12]} at {self.where} is corrupt", "flush the store")
        return data

    def put_chunk(self, run: str, sha256: str, index: int, data: bytes, ttl_s: int) -> None:
        """Publish one chunk of a blob, for blobs that do not fit into memory."""
        self._set(f"fccl:{run}:blob:{sha256}:{index}", data, ttl_s)

    def renew_chunk(self, run: str, sha256: str, index: int, ttl_s: int) -> bool:
        """Renew the time to live of a chunk; return whether the chunk exists."""
        return bool(self._do(lambda r: r.expire(f"fccl:{run}:blob:{sha256}:{index}", ttl_s)))

    def get_chunks(
        self,
        run: str,
        sha256: str,
        nbytes: int,
        first: int = 0,
        before_chunk: Callable[[int], None] = lambda nbytes: None,
    ) -> Iterator[bytes]:
        """Yield the chunks of a blob from index `first` on; the digest is not checked.

        For `before_chunk` see `get_blob`.

        Raises:
            StoreError: A chunk is missing or has the wrong size.
        """
        for index, key in enumerate(_chunk_keys(run, sha256, nbytes)):
            if index < first:
                continue
            before_chunk(min(CHUNK, nbytes - index * CHUNK))
            part = self._get(key)
            if part is None or len(part) != min(CHUNK, nbytes - index * CHUNK):
                what = "missing" if part is None else "of another size"
                raise StoreError(f"chunk {index} of blob {sha256[:12]} is {what} at {self.where}")
            yield part

    def has_blob(self, run: str, sha256: str) -> bool:
        return bool(self._do(lambda r: r.exists(f"fccl:{run}:blob:{sha256}:0")))

    def drop_blob(self, run: str, sha256: str, nbytes: int) -> None:
        """Remove a blob that no open task refers to any more."""
        self._do(lambda r: r.delete(*_chunk_keys(run, sha256, nbytes)))

    def set_delivery(self, run: str, frame: bytes) -> None:
        """Publish what sites get at the end of a run: a frame of `Delivery`."""
        self._set(f"fccl:{run}:delivery", frame, DELIVERY_TTL_S)

    def get_delivery(self, run: str) -> bytes | None:
        return self._get(f"fccl:{run}:delivery")

    # receipts and membership

    def put_receipt(self, run: str, site: str, receipt: Receipt) -> None:
        """Publish to a site's workers what became of an update, after it was journaled."""
        self.put_receipts(run, [(site, receipt)])

    def put_receipts(self, run: str, receipts: Iterable[tuple[str, Receipt]]) -> None:
        """Publish receipts, each with the site that gets it, in one round trip."""

        def write(r: Any) -> None:
            with r.pipeline(transaction=False) as pipe:
                for site, receipt in receipts:
                    key = f"fccl:{run}:receipt:{site}:{receipt.task_id}"
                    pipe.set(key, pack(receipt), ex=RECEIPT_TTL_S)
                pipe.execute()

        self._do(write)

    def get_receipt(self, run: str, site: str, task_id: str) -> Receipt | None:
        return self._record(Receipt, f"fccl:{run}:receipt:{site}:{task_id}")

    def put_membership(self, run: str, site: str, membership: Membership) -> None:
        """Publish to a site whether one of its clients takes part.

        A refusal expires: a site may ask for any number of names.
        """
        key = f"fccl:{run}:member:{site}:{membership.client_id}"
        refused = membership.state == "refused"
        self._set(key, pack(membership), REFUSAL_TTL_S if refused else None)

    def get_membership(self, run: str, site: str, client_id: str) -> Membership | None:
        """Return whether a client takes part; None while that is undecided."""
        return self._record(Membership, f"fccl:{run}:member:{site}:{client_id}")

    # joining: one token, one request, one answer

    def put_join_request(self, token_id: str, request: bytes) -> None:
        self._set(f"fccl:join:{token_id}:request", request)

    def get_join_request(self, token_id: str) -> bytes | None:
        start = f"fccl:join:{token_id}:request"
        value: bytes = self._do(lambda r: r.getrange(start, 0, MAX_FRAME))
        return value or None

    def put_join_answer(self, token_id: str, answer: bytes) -> None:
        self._set(f"fccl:join:{token_id}:answer", answer, JOIN_TTL_S)

    def get_join_answer(self, token_id: str) -> bytes | None:
        return self._get(f"fccl:join:{token_id}:answer")

    # commands of an operator, and the coordinator's answers

    def put_command(self, run: str, command: bytes) -> None:
        self._do(lambda r: r.rpush(f"fccl:{run}:commands", command))

    def commands(self, run: str) -> list[bytes]:
        """Return the open commands, oldest first; they stay until `drop_commands`."""
        return list(self._do(lambda r: r.lrange(f"fccl:{run}:commands", 0, MAX_COMMANDS - 1)))

    def drop_commands(self, run: str, count: int) -> None:
        """Remove the oldest `count` commands."""
        self._do(lambda r: r.ltrim(f"fccl:{run}:commands", count, -1))

    def remove_command(self, run: str, command: bytes) -> None:
        """Withdraw a command, if it is still there."""
        self._do(lambda r: r.lrem(f"fccl:{run}:commands", 0, command))

    def put_reply(self, run: str, command_id: str, answer: bytes) -> None:
        self._set(f"fccl:{run}:answer:{command_id}", answer, ANSWER_TTL_S)

    def get_reply(self, kind: type[R], run: str, command_id: str) -> R | None:
        return self._record(kind, f"fccl:{run}:answer:{command_id}")

    # heartbeats

    def put_heartbeat(self, run: str, heartbeat: Heartbeat) -> None:
        """Write a heartbeat; its time to live runs on the server's clock."""
        site, worker = heartbeat.site, heartbeat.worker_id
        self._set(heartbeat_key(run, site, worker), pack(heartbeat), HEARTBEAT_TTL_S)
        # Not atomic: a name that another worker's has replaced comes back with its next heartbeat.
        index = add_to_index(self._get(index_key(run, site)) or b"", worker)
        if index is not None:
            self._set(index_key(run, site), index, INDEX_TTL_S)

    def remove_heartbeat(self, run: str, site: str, worker_id: str) -> None:
        self._do(lambda r: r.delete(heartbeat_key(run, site, worker_id)))

    def heartbeat_reader(self, run: str) -> HeartbeatReader:
        return HeartbeatReader(self._do, run)

    def heartbeats(self, run: str) -> tuple[Heartbeat, ...]:
        """Return the heartbeats of the live workers; see `HeartbeatReader.read`."""
        return self.heartbeat_reader(run).read()

    # tables that the coordinator replaces as a whole, and the event feed

    def put_table(self, run: str, name: str, rows: Mapping[str, bytes]) -> None:
        """Replace a hash (`clients`, `queues`, `samples`, …) in one step."""
        key = f"fccl:{run}:{name}"

        def write(r: Any) -> None:
            with r.pipeline(transaction=True) as pipe:
                pipe.delete(key)
                if rows:
                    pipe.hset(key, mapping=dict(rows))
                pipe.execute()

        self._do(write)

    def put_rows(self, run: str, name: str, rows: Mapping[str, bytes]) -> None:
        """Add rows to a hash, or replace them; the others stay."""
        if rows:
            self._do(lambda r: r.hset(f"fccl:{run}:{name}", mapping=dict(rows)))

    def append_events(self, run: str, events: Iterable[Event]) -> None:
        """Append to the event feed, which keeps about the last `FEED_LENGTH` events."""

        def write(r: Any) -> None:
            with r.pipeline(transaction=False) as pipe:
                for event in events:
                    key = f"fccl:{run}:events"
                    pipe.xadd(key, {"e": pack(event)}, maxlen=FEED_LENGTH, approximate=True)
                pipe.execute()

        self._do(write)

    def read_status(self, run: str, events: int = 20) -> dict[str, Any]:
        """Read everything that `common.store.view` shows, as raw bytes, in one round trip.

        `events` limits the feed's newest entries.
        """
        tables = ("clients", "queues", "summaries", "samples", "evaluations", "evaluators")

        def pipelined(r: Any) -> list[Any]:
            with r.pipeline(transaction=False) as pipe:
                pipe.get(f"fccl:{run}:info")
                pipe.get(f"fccl:{run}:version")
                for name in tables:
                    pipe.hgetall(f"fccl:{run}:{name}")
                pipe.xrevrange(f"fccl:{run}:events", count=events)
                return list(pipe.execute())

        names = ("info", "version", *tables, "events")
        return dict(zip(names, self._do(pipelined), strict=True))

    def _set(self, key: str, value: str | bytes | int, ttl_s: int | None = None) -> None:
        self._do(lambda r: r.set(key, value, ex=ttl_s))

    def _get(self, key: str) -> bytes | None:
        value: bytes | None = self._do(lambda r: r.get(key))
        return value

    def _record(self, kind: type[R], key: str) -> R | None:
        value = self._get(key)
        return None if value is None else next(_parsed(kind, [value]), None)

    def _do(self, call: Callable[[Any], T]) -> T:
        try:
            return call(self._redis)
        except redis.RedisError as error:
            raise explain_redis_error(error, self.where) from None


def _chunk_keys(run: str, sha256: str, nbytes: int) -> list[str]:
    count = max(1, -(-nbytes // CHUNK))
    return [f"fccl:{run}:blob:{sha256}:{i}" for i in range(count)]


def _parsed(kind: type[R], values: Iterable[bytes | None]) -> Iterator[R]:
    for value in values:
        if value is None:
            continue
        try:
            yield unpack(kind, value)[0]
        except WireError:
            continue
