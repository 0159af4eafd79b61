"""Messages, chunks, tensors, tokens and what the servers hold."""

from __future__ import annotations

import itertools
import json
import time
from pathlib import Path
from typing import Any

import fakeredis
import msgpack
import numpy as np
from pydantic import ValidationError
from rich.console import Console

from broker.chunks import split_update
from broker.protocol import Message
from common import urls
from common.errors import WireError
from common.evaluation.rows import EvaluationRow
from common.protocol import codec, invitation
from common.protocol.adapter_frame import pack_adapter, unpack_adapter
from common.protocol.commands import Command, CommandReply
from common.protocol.delivery import AdapterModules, pack_delivery, unpack_delivery
from common.protocol.evaluations import EvalResult, EvalTask, EvaluatorFigures
from common.protocol.feed import Event
from common.protocol.fields import Record
from common.protocol.heartbeat import Heartbeat
from common.protocol.layout import TensorLayout
from common.protocol.manifest import parse_manifest
from common.protocol.membership import Enrolment, Membership
from common.protocol.run_plan import RunPlan
from common.protocol.tasks import Receipt, TaskRefusal, TrainTask
from common.protocol.updates import Update
from common.protocol.versions import Adapter, CurrentModel, VersionSummary
from common.protocol.wire import explain, kind_of, pack, unpack
from common.store.store import Store
from common.store.view import ClientRow, QueueRow, RunInfo, read
from coordinator.core import machine
from coordinator.core.events import CommandReceived, HeartbeatsRead, WorkerSignal
from coordinator.ingest.ingest import Allowance, Ingest
from coordinator.storage.journal import Journal
from coordinator.storage.spool import Spool, decode_delta
from tests.fuzz import mutate
from tests.fuzz.target import Reader, Target, check_message
from tests.support import records
from tests.support.coordinator_records import START, update_frame, version_summary
from tests.support.evaluation_records import text_sums
from tests.support.run_plans import run_plan
from tests.support.tui import builders
from tests.support.virtual_federation import make_plan
from tui.status_panel import status_panel

KINDS: dict[str, type[Record]] = {
    kind.__name__: kind
    for kind in (
        Adapter, ClientRow, Command, CommandReply, CurrentModel, Enrolment, EvalResult, EvalTask,
        Event, Heartbeat, Membership, QueueRow, Receipt, RunInfo, RunPlan, TaskRefusal, TrainTask,
        Update, VersionSummary,
    )
}  # fmt: skip
RESULT = EvalResult(
    task_id="e000001", attempt=1, client_id="c0", worker_id="w0", version=0,
    sums=text_sums(2.0), seconds=1.0, nbytes=9,
)  # fmt: skip
EVAL_TASK = EvalTask(
    task_id="e000001", attempt=1, run="run-1", client_id="c0", version=3, phase=0, objective="sft",
    base=records.TASK.base, adapter=records.TASK.adapter, lora=records.TASK.lora, max_length=64,
    prompt=records.TASK.prompt, layout=records.SHA, max_rows=9, issued_at=1.0, deadline_s=60.0,
)  # fmt: skip
ENROLMENT = Enrolment(client_id="far", worker_id="w0", rows={"sft": 9}, nonce=1)
COMMAND = Command(command_id="k1", action="kick", target="c0", by="ann@host", at=1.0)


def _frames() -> list[bytes]:
    others = [RESULT, EVAL_TASK, ENROLMENT, COMMAND, run_plan()]
    return [pack(each) for each in [*records.EXAMPLES, *others]]


def _wire(_: Path) -> Reader:
    def read_frame(data: bytes) -> None:
        kind = KINDS.get(kind_of(data), Update)
        record, _ = unpack(kind, data)
        again, _ = unpack(kind, pack(record))
        assert again == record or "nan" in repr(record), "a record changes on its way"

    return read_frame


LAYOUT = TensorLayout.of(START)


def _update_frames() -> list[bytes]:
    frames = []
    for name in ("fp32", "bf16", "int8", "int4", "topk"):
        layout, data = codec.encode(name, START)  # type: ignore[arg-type]
        changed: dict[str, Any] = {"codec": name, "layout": layout.digest}
        update = records.UPDATE.model_copy(update={**changed, "sha256": codec.digest(data)})
        frames.append(pack(update, data))
    return [*frames, update_frame()]


def _tensors(_: Path) -> Reader:
    def read_tensors(data: bytes) -> None:
        update, payload = unpack(Update, data)
        tensors = decode_delta(update, payload, LAYOUT)
        assert {name: t.shape for name, t in tensors.items()} == {
            name: t.shape for name, t in START.items()
        }

    return read_tensors


def _layout(_: Path) -> Reader:
    def read_layout(data: bytes) -> None:
        layout = TensorLayout.from_bytes(data)
        assert layout.to_bytes() == data
        for name in ("fp32", "bf16", "int8", "int4", "topk"):
            codec.payload_bytes(name, layout)  # type: ignore[arg-type]

    return read_layout


def _adapter(_: Path) -> Reader:
    return unpack_adapter


def _adapters() -> list[bytes]:
    small = {"a": np.ones((2, 3), np.float32)}
    return [pack_adapter(3, "fp32", START), pack_adapter(1, "bf16", small, schema1=True)]


def _envelopes() -> list[bytes]:
    bodies = [*_update_frames(), pack(RESULT)]
    chunks = [
        (f"t00000{i}.1" if i else "e000001.1", message)
        for i, body in enumerate(bodies)
        for message in split_update(f"t00000{i}.1" if i else "e000001.1", body, 300)
    ]
    envelopes = [[dict(m.headers), "local", m.body] for _, m in chunks[:20]]
    shorts = [ENROLMENT, records.EXAMPLES[5]]
    envelopes += [[{}, "local", pack(each)] for each in shorts]
    envelopes.append([{"fccl-dead-reason": "unreadable"}, "local", b""])
    return [msgpack.packb(each) for each in envelopes]


def _ingest(folder: Path) -> Reader:
    journal = Journal.create(Path(":memory:"), {})
    journal.put_version(version_summary(0))
    journal.take_over()
    (folder / "spool").mkdir()
    ingest = Ingest(journal, Spool(folder / "spool"))
    ingest.start(LAYOUT)
    ingest.allowances = {"local": Allowance(2, 100)}
    plan = make_plan(2)
    numbers = itertools.count()

    def read_message(data: bytes) -> None:
        headers, user, body = _unpacked(data, 3)
        message = Message(bytes(_typed(body, bytes)), _typed(headers, dict), str(user))
        arrival = ingest.process(message, "local", "local", float(next(numbers)))
        if arrival.event is not None:
            machine.step(plan, machine.CoordinatorState(), arrival.event, 1.0)
        if arrival.upload:
            ingest._drop(arrival.upload)
        if next(numbers) % 64 == 0:
            ingest.expire(1e9)

    return read_message


def _unpacked(data: bytes, count: int) -> list[Any]:
    """Return the parts of an input; one that is none stands for no message."""
    try:
        parts = msgpack.unpackb(data, strict_map_key=False)
    except Exception:
        raise WireError("not an input") from None
    if not isinstance(parts, list) or len(parts) != count:
        raise WireError("not an input")
    return parts


def _typed(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise WireError("not an input")
    return value


def _manifest(_: Path) -> Reader:
    return parse_manifest


def _delivery(_: Path) -> Reader:
    return lambda data: unpack_delivery(data, "run-1")


def _token(_: Path) -> Reader:
    def read_token(data: bytes) -> None:
        found = invitation.decode(data.decode("utf-8", "surrogateescape"), 1e9)
        assert invitation.decode(invitation.encode(found), 1e9) == found

    return read_token


def _tokens() -> list[bytes]:
    fields: dict[str, Any] = {
        "token_id": "0" * 16, "site": "far", "name": "r", "broker": "amqps://host:5671/",
        "store": "rediss://host:6380/0", "secret": "s" * 43, "expires_at": 2e9, "ca": "PEM",
    }  # fmt: skip
    first = invitation.Invitation(**fields)
    second = invitation.Invitation(**fields, kinds=("sft", "cls"), labels=("bad", "good"))
    return [invitation.encode(first).encode(), invitation.encode(second).encode()]


MANIFEST = "".join(
    f"{records.SHA} {size} {name}\n"
    for name, size in (("config.json", 9), ("model.safetensors", 99))
).encode()
MODULES = AdapterModules(target_modules=("q_proj",))


def _beats() -> list[bytes]:
    worker = records.HEARTBEAT.model_copy(update={"site": "local", "worker_id": "w0"})
    return [pack(worker)]


# what Redis holds


def _heartbeats(_: Path) -> Reader:
    client = fakeredis.FakeStrictRedis()
    store = Store(client, "test")
    plan = make_plan(2)

    def read_heartbeat(data: bytes) -> None:
        client.set("fccl:run:heartbeat:local:w0", data)
        client.set("fccl:run:heartbeat:local::workers", data[:100])
        signals = tuple(
            WorkerSignal(h.site, h.state != "waiting", h.task_id, h.wishes)
            for h in store.heartbeats("run")
        )
        machine.step(plan, machine.CoordinatorState(), HeartbeatsRead(signals), 1.0)

    return read_heartbeat


TABLES = ("clients", "queues", "summaries", "samples", "evaluations", "evaluators")


def _status(_: Path) -> Reader:
    client = fakeredis.FakeStrictRedis()
    store = Store(client, "test")
    console = Console(file=(_ / "screen").open("w"), width=100)

    def read_view(data: bytes) -> None:
        info, rows, event, beat = _unpacked(data, 4)
        client.flushall()
        client.set("fccl:run:r", "run-1")
        client.set("fccl:run-1:info", _typed(info, bytes))
        for name, row in zip(TABLES, _typed(rows, list), strict=False):
            if isinstance(row, bytes):
                client.hset(f"fccl:run-1:{name}", "1", row)
        client.xadd("fccl:run-1:events", {b"e": _typed(event, bytes)})
        client.set("fccl:run-1:heartbeat:local:w0", _typed(beat, bytes))
        view = read(store, "r")
        console.print(status_panel(view, time.time()))
        console.file.seek(0)

    return read_view


def _views() -> list[bytes]:
    values = [
        pack(builders.client("c0", last_loss=1.5, weight=0.5, seen_at=1.0, live=True)),
        pack(builders.queue("tasks.local", 3)),
        builders.version(1, builders.update()).model_dump_json().encode(),
        pack(builders.sample(1)),
        EvaluationRow(version=1, phase=0, kind="sft", at=1.0, rows=9, values={"loss": 2.0})
        .model_dump_json()
        .encode(),
        EvaluatorFigures(version=1, evaluator="e", at=1.0, figures={"a": 1.0}, seconds=1.0)
        .model_dump_json()
        .encode(),
    ]
    event = pack(builders.event("text", client="c0"))
    beat = pack(builders.heartbeat("w0"))
    info = pack(builders.info(phase_ends=(9,), min_clients=2, live_clients=1))
    return [msgpack.packb([info, values, event, beat])]


def _commands(_: Path) -> Reader:
    plan = make_plan(2)

    def read_command(data: bytes) -> None:
        command, _ = unpack(Command, data)
        machine.step(plan, machine.CoordinatorState(), CommandReceived(command), 1.0)

    return read_command


def _join_requests(_: Path) -> Reader:
    def read_request(data: bytes) -> None:
        try:
            invitation.JoinRequest.model_validate_json(data)
            invitation.JoinAnswer.model_validate_json(data)
        except ValidationError as error:
            raise WireError(explain(error)) from None

    return read_request


def _requests() -> list[bytes]:
    fields: dict[str, Any] = {
        "broker_hash": "a" * 48, "store_hash": "0" * 64, "host": "h", "software": "fccl",
        "protocol": 1, "state": "admitted", "request": "x", "reason": "y",
    }  # fmt: skip
    return [json.dumps(fields).encode()]


def _urls(_: Path) -> Reader:
    def read_url(data: bytes) -> None:
        text = data.decode("utf-8", "surrogateescape")
        for kind in (urls.BROKER, urls.STORE, urls.HTTP, urls.PROXY):
            assert "secret" not in urls.show_url(text, kind) or "secret" not in text
            try:
                urls.parse_url(text, kind)
            except urls.UrlError as error:
                check_message(f"{error.what}; {error.remedy}")

    return read_url


URLS = (
    b"amqp://user:secret@host:5672/vhost?heartbeat=9", b"rediss://:secret@[::1]:6380/0",
    b"https://example.org:8443/path?query", b"http://user:secret@proxy:3128",
)  # fmt: skip
FRAME = (mutate.mutate_frame, mutate.mutate_frame, mutate.mutate_bytes)
TEXT = (mutate.mutate_lines, mutate.mutate_bytes)
ENVELOPE = (
    mutate.inside(mutate.mutate_frame, 2),
    mutate.mutate_msgpack,
    mutate.inside(mutate.mutate_bytes, 2),
)
VIEW = (
    *(mutate.inside(mutate.mutate_frame, place) for place in (0, 2, 3)),
    *(mutate.inside(mutate.mutate_frame, 1, place) for place in (0, 1, 3)),
    *(mutate.inside(mutate.mutate_json, 1, place) for place in (2, 4, 5)),
)
PROTOCOL = (
    Target("wire", _wire, _frames, FRAME, 120),
    Target("tensors", _tensors, _update_frames, FRAME, 40),
    Target("layout", _layout, lambda: [LAYOUT.to_bytes(), b"a.b 1\nc 2x3x4\n"], TEXT, 60),
    Target("adapter", _adapter, _adapters, FRAME, 40),
    Target("ingest", _ingest, _envelopes, ENVELOPE, 40),
    Target("manifest", _manifest, lambda: [MANIFEST], TEXT, 40),
    Target("delivery", _delivery, lambda: [pack_delivery(records.DELIVERY, MODULES)], FRAME, 30),
    Target("token", _token, _tokens, (mutate.mutate_token, mutate.mutate_bytes), 60),
    Target(
        "join-request", _join_requests, _requests, (mutate.mutate_json, mutate.mutate_bytes), 30
    ),
    Target("url", _urls, lambda: list(URLS), (mutate.mutate_bytes, mutate.mutate_lines), 60),
    Target("heartbeat", _heartbeats, _beats, FRAME, 20),
    Target("command", _commands, lambda: [pack(COMMAND)], FRAME, 30),
    Target("redis", _status, _views, VIEW, 6),
)
