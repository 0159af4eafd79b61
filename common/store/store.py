"""The Redis store: heartbeats up, status and adapters down. The only file that imports redis.

Everything in it can be rebuilt (docs/protocol.md lists the keys and who writes each). Every method
raises `StoreError` when Redis is out of reach or refuses; callers decide what that degrades.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import redis

from common.errors import StoreAccessError, StoreError, WireError
from common.protocol.feed import Event
from common.protocol.fields import Record
from common.protocol.heartbeat import Heartbeat
from common.protocol.membership import Membership
from common.protocol.tasks import Receipt
from common.protocol.versions import CurrentModel
from common.protocol.wire import MAX_HEADER, pack, unpack
from common.tls.verification import explain_tls_error, explain_unreadable_ca, verifying_context

CHUNK = 8 * 1024 * 1024
HEARTBEAT_TTL_S = 15
RECEIPT_TTL_S = 7 * 24 * 3600
JOIN_TTL_S = 90 * 24 * 3600
FEED_LENGTH = 2000
MAX_COMMANDS = 100  # looked at in one go
ANSWER_TTL_S = 24 * 3600
MAX_WORKERS_PER_SITE = 256
MAX_FRAME = MAX_HEADER + 64  # bytes of a record without data

R = TypeVar("R", bound=Record)


class StorePermissionError(StoreAccessError):
    """The store answers, and this user may not do that."""


@dataclass(frozen=True)
class ServerInfo:
    """A Redis server, as it describes itself.

    Attributes:
        version: Of its software.
        used: Bytes in memory.
        limit: Bytes that it may use; 0 for all there are.
        policy: What it does when it is full.
    """

    version: str
    used: int
    limit: int
    policy: str


T = TypeVar("T")


def connect(url: str, timeout_s: float = 3.0, ca: str | None = None) -> Store:
    """A store at a redis:// or rediss:// URL.

    Args:
        url: Where, and as whom.
        timeout_s: For connecting and for each answer.
        ca: Certificates (PEM) that may vouch for a rediss:// server; the system's without.

    Raises:
        StoreError: Out of reach, or it refuses us, or we its certificate; the URL is none, or
            there are no certificates in `ca`.
    """
    tls: dict[str, Any] = {}
    if ca and url.startswith("rediss://"):
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
    except (ValueError, TypeError):  # their text may repeat a part of the password
        raise StoreError("store.url is no Redis URL", "e.g. redis://host:6379/0") from None
    store = Store(client, host_and_port(url))
    store.ping()
    return store


def host_and_port(url: str) -> str:
    """Host and port of a URL, without its credentials."""
    host = url.partition("?")[0].rpartition("@")[2]  # the query may carry a password, too
    return host.removeprefix("redis://").removeprefix("rediss://")


class Store:
    """Typed access to one Redis, real or embedded."""

    def __init__(self, client: Any, where: str) -> None:
        self._redis = client
        self.where = where

    def execute(self, *words: str) -> Any:
        """Any command, for those that only `common/store/acl.py` and a doctor need."""
        return self._do(lambda r: r.execute_command(*words))

    def ping(self) -> None:
        """Raise `StoreError` unless Redis answers."""
        self._do(lambda r: r.ping())

    def server_info(self) -> ServerInfo:
        """What the server says of itself.

        Raises:
            StoreDenied: This user may not ask.
        """
        info = self._do(lambda r: {**r.info("server"), **r.info("memory")})
        return ServerInfo(
            version=str(info.get("redis_version", "unknown")),
            used=int(info.get("used_memory", 0)),
            limit=int(info.get("maxmemory", 0)),
            policy=str(info.get("maxmemory_policy", "unknown")),
        )

    def server_time(self) -> float:
        """The server's time, seconds since 1970.

        Raises:
            StoreDenied: This user may not ask.
        """
        seconds, microseconds = self._do(lambda r: r.time())
        return float(seconds + microseconds / 1e6)

    # the run

    def set_run(self, name: str, run: str) -> None:
        """Point a run's name at its id."""
        self._do(lambda r: r.set(f"fccl:run:{name}", run))

    def get_run(self, name: str) -> str | None:
        """The id of the run that carries this name now."""
        value = self._do(lambda r: r.get(f"fccl:run:{name}"))
        return None if value is None else value.decode()

    def set_info(self, run: str, info: bytes) -> None:
        """The coordinator's status record (see `common.store.view`)."""
        self._do(lambda r: r.set(f"fccl:{run}:info", info))

    def get_info(self, run: str) -> bytes | None:
        """The coordinator's status record, if there is one."""
        value: bytes | None = self._do(lambda r: r.get(f"fccl:{run}:info"))
        return value

    def set_version(self, run: str, version: int) -> None:
        """The newest version; readers keep the maximum that they have seen."""
        self._do(lambda r: r.set(f"fccl:{run}:version", version))

    def get_version(self, run: str) -> int | None:
        """The newest version published, if any."""
        value = self._do(lambda r: r.get(f"fccl:{run}:version"))
        return None if value is None else int(value)

    def set_model(self, run: str, model: bytes) -> None:
        """What the newest version is: a `CurrentModel`."""
        self._do(lambda r: r.set(f"fccl:{run}:model", model))

    def get_model(self, run: str) -> CurrentModel | None:
        """What the newest version is, once there is one."""
        return self._record(CurrentModel, f"fccl:{run}:model")

    def put_summary(self, run: str, version: int, line: str) -> None:
        """One permanent JSON line per version."""
        self._do(lambda r: r.hset(f"fccl:{run}:summaries", str(version), line))

    # blobs: adapters and base-model files, by content

    def put_blob(self, run: str, data: bytes, ttl_s: int | None = None) -> None:
        """Publish bytes under their SHA-256, in chunks; again is harmless."""
        key = f"fccl:{run}:blob:{hashlib.sha256(data).hexdigest()}"

        def write(r: Any) -> None:
            for i in range(max(1, -(-len(data) // CHUNK))):
                r.set(f"{key}:{i}", data[i * CHUNK : (i + 1) * CHUNK], ex=ttl_s)

        self._do(write)

    def get_blob(self, run: str, sha256: str, nbytes: int) -> bytes | None:
        """A blob, verified; None while it is not (wholly) there.

        Raises:
            StoreError: Out of reach, or the bytes do not have that digest.
        """
        key = f"fccl:{run}:blob:{sha256}"
        count = max(1, -(-nbytes // CHUNK))
        parts = self._do(lambda r: [r.get(f"{key}:{i}") for i in range(count)])
        if any(part is None for part in parts):
            return None
        data = b"".join(parts)
        if hashlib.sha256(data).hexdigest() != sha256:
            raise StoreError(f"blob {sha256[:12]} at {self.where} is corrupt", "flush the store")
        return data

    def has_blob(self, run: str, sha256: str) -> bool:
        """Whether a blob's first chunk is there."""
        return bool(self._do(lambda r: r.exists(f"fccl:{run}:blob:{sha256}:0")))

    def drop_blob(self, run: str, sha256: str, nbytes: int) -> None:
        """Remove a blob that no open task names any more."""
        count = max(1, -(-nbytes // CHUNK))
        keys = [f"fccl:{run}:blob:{sha256}:{i}" for i in range(count)]
        self._do(lambda r: r.delete(*keys))

    # receipts

    def put_receipt(self, run: str, site: str, receipt: Receipt) -> None:
        """Tell a site's workers what became of an update; journaled before."""
        key = f"fccl:{run}:receipt:{site}:{receipt.task_id}"
        self._do(lambda r: r.set(key, pack(receipt), ex=RECEIPT_TTL_S))

    def get_receipt(self, run: str, site: str, task_id: str) -> Receipt | None:
        """The receipt of a task, once there is one."""
        return self._record(Receipt, f"fccl:{run}:receipt:{site}:{task_id}")

    def put_membership(self, run: str, site: str, membership: Membership) -> None:
        """Tell a site whether one of its clients takes part."""
        key = f"fccl:{run}:member:{site}:{membership.client_id}"
        self._do(lambda r: r.set(key, pack(membership)))

    def get_membership(self, run: str, site: str, client_id: str) -> Membership | None:
        """Whether a client takes part; None while nothing is decided."""
        return self._record(Membership, f"fccl:{run}:member:{site}:{client_id}")

    # joining: one token, one request, one answer

    def put_join_request(self, token_id: str, request: bytes) -> None:
        """Ask to join, as the token's user."""
        self._do(lambda r: r.set(f"fccl:join:{token_id}:request", request))

    def get_join_request(self, token_id: str) -> bytes | None:
        """What the holder of a token asks."""
        start = f"fccl:join:{token_id}:request"
        value: bytes = self._do(lambda r: r.getrange(start, 0, MAX_FRAME))
        return value or None

    def put_join_answer(self, token_id: str, answer: bytes) -> None:
        """Answer the holder of a token."""
        self._do(lambda r: r.set(f"fccl:join:{token_id}:answer", answer, ex=JOIN_TTL_S))

    def get_join_answer(self, token_id: str) -> bytes | None:
        """The answer to the holder of a token, once there is one."""
        value: bytes | None = self._do(lambda r: r.get(f"fccl:join:{token_id}:answer"))
        return value

    # commands of an operator, and the coordinator's answers

    def put_command(self, run: str, command: bytes) -> None:
        """Ask the coordinator for something."""
        self._do(lambda r: r.rpush(f"fccl:{run}:commands", command))

    def commands(self, run: str) -> list[bytes]:
        """What is asked, the oldest first; stays until `drop_commands`."""
        return list(self._do(lambda r: r.lrange(f"fccl:{run}:commands", 0, MAX_COMMANDS - 1)))

    def drop_commands(self, run: str, count: int) -> None:
        """Take the oldest away."""
        self._do(lambda r: r.ltrim(f"fccl:{run}:commands", count, -1))

    def remove_command(self, run: str, command: bytes) -> None:
        """Take one back, if it is still there."""
        self._do(lambda r: r.lrem(f"fccl:{run}:commands", 0, command))

    def put_reply(self, run: str, command_id: str, answer: bytes) -> None:
        """What became of a command."""
        self._do(lambda r: r.set(f"fccl:{run}:answer:{command_id}", answer, ex=ANSWER_TTL_S))

    def get_reply(self, kind: type[R], run: str, command_id: str) -> R | None:
        """What became of a command, once the coordinator has said so."""
        return self._record(kind, f"fccl:{run}:answer:{command_id}")

    # heartbeats

    def put_heartbeat(self, run: str, heartbeat: Heartbeat) -> None:
        """Write a heartbeat; its time to live runs on the server's clock."""
        key = f"fccl:{run}:heartbeat:{heartbeat.site}:{heartbeat.worker_id}"
        self._do(lambda r: r.set(key, pack(heartbeat), ex=HEARTBEAT_TTL_S))

    def remove_heartbeat(self, run: str, site: str, worker_id: str) -> None:
        """Remove a heartbeat: the worker says goodbye."""
        self._do(lambda r: r.delete(f"fccl:{run}:heartbeat:{site}:{worker_id}"))

    def heartbeats(self, run: str) -> tuple[Heartbeat, ...]:
        """The live workers, by site and id.

        A heartbeat is a claim. One that does not parse, or speaks for another site or worker than
        its key (which the server holds its writer to), is left out; of a large one only as much is
        read as a true one can have, and of a site's many only the first.
        """
        start = f"fccl:{run}:heartbeat:"

        def read(r: Any) -> list[tuple[bytes, bytes]]:
            found: list[bytes] = []
            of_site: Counter[bytes] = Counter()
            for key in r.scan_iter(match=f"{start}*", count=500):
                site = key[len(start) :].partition(b":")[0]
                of_site[site] += 1
                if of_site[site] <= MAX_WORKERS_PER_SITE:
                    found.append(key)
            with r.pipeline(transaction=False) as pipe:
                for key in sorted(found):
                    pipe.getrange(key, 0, MAX_FRAME)
                return list(zip(sorted(found), pipe.execute(), strict=True))

        return tuple(
            beat
            for key, value in self._do(read)
            for beat in _parsed(Heartbeat, [value])
            if key.decode("utf-8", "replace") == f"{start}{beat.site}:{beat.worker_id}"
        )

    # tables that the coordinator rewrites whole, and the feed

    def put_table(self, run: str, name: str, rows: Mapping[str, bytes]) -> None:
        """Replace a hash (`clients`, `queues`, `samples`) in one step."""
        key = f"fccl:{run}:{name}"

        def write(r: Any) -> None:
            with r.pipeline(transaction=True) as pipe:
                pipe.delete(key)
                if rows:
                    pipe.hset(key, mapping=dict(rows))
                pipe.execute()

        self._do(write)

    def append_events(self, run: str, events: Iterable[Event]) -> None:
        """Append to the bounded event stream."""

        def write(r: Any) -> None:
            for event in events:
                key = f"fccl:{run}:events"
                r.xadd(key, {"e": pack(event)}, maxlen=FEED_LENGTH, approximate=True)

        self._do(write)

    def events(self, run: str, after: str = "0", count: int = 500) -> tuple[str, tuple[Event, ...]]:
        """Events later than a stream id, and the id to go on from."""
        entries = self._do(lambda r: r.xrange(f"fccl:{run}:events", f"({after}", "+", count=count))
        last = entries[-1][0].decode() if entries else after
        return last, tuple(_parsed(Event, [fields.get(b"e") for _, fields in entries]))

    def read_status(self, run: str, events: int = 20) -> dict[str, Any]:
        """One pipelined read of everything that `common.store.view` shows, as raw bytes.

        Args:
            run: Its id.
            events: At most so many of the feed's newest entries.
        """

        def pipelined(r: Any) -> list[Any]:
            with r.pipeline(transaction=False) as pipe:
                pipe.get(f"fccl:{run}:info")
                pipe.get(f"fccl:{run}:version")
                for name in ("clients", "queues", "summaries", "samples"):
                    pipe.hgetall(f"fccl:{run}:{name}")
                pipe.xrevrange(f"fccl:{run}:events", count=events)
                return list(pipe.execute())

        names = ("info", "version", "clients", "queues", "summaries", "samples", "events")
        return dict(zip(names, self._do(pipelined), strict=True))

    def _record(self, kind: type[R], key: str) -> R | None:
        value = self._do(lambda r: r.get(key))
        return None if value is None else next(_parsed(kind, [value]), None)

    def _do(self, call: Callable[[Any], T]) -> T:
        try:
            return call(self._redis)
        except redis.RedisError as error:
            raise _explained(error, self.where) from None


def _explained(error: redis.RedisError, where: str) -> StoreError:
    """Redis' errors in our words; those about reach or login may repeat parts of a URL."""
    what = f"the store at {where}"
    if tls := explain_tls_error(error, "store"):
        return StoreError(f"{what} {tls[0]}", tls[1])
    match error:
        case redis.AuthenticationError():
            return StoreAccessError(
                f"{what} refuses this user or password",
                "set store.url: redis://user:password@host:port/0",
            )
        case redis.exceptions.NoPermissionError():
            return StorePermissionError(
                f"{what} gives this user no permission ({str(error)[:120]})",
                "use the credentials that were made for this site",
            )
        case redis.ResponseError() if "maxmemory" in str(error):
            return StoreError(f"{what} is full", "raise its maxmemory")
        case redis.ResponseError() if "protected mode" in str(error):
            return StoreError(
                f"{what} is in protected mode: it refuses other machines",
                "give it users or a password, or call it from its own machine",
            )
        case redis.ResponseError():  # what follows a comma may be arguments, of AUTH as well
            return StoreError(f"{what} refuses ({str(error).partition(',')[0][:120]})")
        case redis.BusyLoadingError():
            return StoreError(f"{what} is still loading", "wait until it is ready")
        case redis.ConnectionError() if any(word in str(error) for word in ("closed by", "reset")):
            return StoreError(
                f"{what} closed the connection",
                "see whether it still runs; a TLS port wants rediss:// in store.url",
            )
        case _:
            return StoreError(
                f"{what} does not answer ({type(error).__name__})",
                "start Redis there, or set store.url",
            )


def _parsed(kind: type[R], values: Iterable[bytes | None]) -> Iterator[R]:
    for value in values:
        if value is None:
            continue
        try:
            yield unpack(kind, value)[0]
        except WireError:
            continue
