"""Conversion of the messages on the update queues into events for the core.

Chunks are made durable one by one, so that each can be acked immediately and any prefetch works;
the last one completes an `UpdateArrived`. `coordinator/core/admission.py`, the next file on the
path of an update, decides whether it is accepted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import get_args

from broker.chunks import Chunk, parse_chunk
from broker.dead_letter import DEAD_REASON
from broker.protocol import Message
from common.errors import WireError
from common.protocol import codec
from common.protocol.evaluations import EvalResult
from common.protocol.fields import CodecName
from common.protocol.kinds import RejectionKind
from common.protocol.layout import TensorLayout
from common.protocol.membership import Enrolment
from common.protocol.tasks import TaskRefusal
from common.protocol.updates import Update
from common.protocol.wire import MAX_HEADER, kind_of, unpack
from coordinator.core import admission
from coordinator.core.events import (
    DuplicateArrived,
    EnrolmentRequested,
    EvaluationArrived,
    Rejection,
    TaskRefused,
    UpdateArrived,
)
from coordinator.storage.journal import Journal
from coordinator.storage.spool import Spool, decode_delta, upload_name

UPLOADS_PER_SITE = 64
"""Most unfinished uploads of one site: bounds the disk space that it can fill."""
UPLOAD_TTL_S = 3600.0
MAX_RESULT = MAX_HEADER + 64
"""Bytes of the longest answer to an evaluation, which is a record without data."""
_UPDATE_ID = re.compile(r"([A-Za-z0-9][A-Za-z0-9_-]{0,63})\.[0-9]{1,5}\Z")

ArrivedEvent = (
    UpdateArrived | EvaluationArrived | TaskRefused | DuplicateArrived | EnrolmentRequested
)


@dataclass(frozen=True)
class Arrival:
    """Result of processing a message."""

    event: ArrivedEvent | None = None
    """Event for the core; None while chunks are missing."""
    upload: str = ""
    """Upload that is complete with this message; empty for a message without chunks."""


@dataclass(frozen=True)
class Allowance:
    """Limits of an invitation: clients of the site, and counted training rows of each client."""

    max_clients: int
    max_rows: int


class Ingest:
    """Processor of the messages on one run's update queues.

    Attributes:
        allowances: Limits of each invited site, by name.
    """

    def __init__(self, journal: Journal, spool: Spool) -> None:
        self._journal = journal
        self._spool = spool
        self._layout = TensorLayout(())
        self._update_layout: Callable[[TensorLayout, str], TensorLayout] | None = None
        self._schema1 = False
        self._max_bytes = 0
        self.allowances: Mapping[str, Allowance] = {}

    def start(
        self,
        layout: TensorLayout,
        *,
        schema1: bool = False,
        update_layout: Callable[[TensorLayout, str], TensorLayout] | None = None,
    ) -> None:
        """Begin to accept updates.

        Args:
            layout: That of the versions.
            schema1: Whether tasks are of schema 1.
            update_layout: Returns the layout of a client's updates from that of the versions, and
                the client's id; by default they are the same.
        """
        self._layout, self._schema1 = layout, schema1
        self._update_layout = update_layout
        # The largest codec: a small tensor takes more bytes as a block of int8 than as fp32.
        payload = max(codec.payload_bytes(name, layout) for name in get_args(CodecName))
        self._max_bytes = payload + 128 * 1024  # more than the header's own limit

    def process(self, message: Message, site: str, user: str, now: float) -> Arrival:
        """Make a message from the update queue of a site durable, and return its event, if any.

        Only `site` can write to that queue, and the broker vouches for the user of each message,
        which has to be `user`.

        Raises:
            WireError: The message is broken or forged: dead-letter it.
            RunError: The disk refused: do not ack.
        """
        if message.user_id != user:
            raise WireError("the message does not carry the broker-validated user of its site")
        if "chunk_index" not in message.headers:
            return Arrival(self._short_message(message, site))
        evaluates = str(message.headers.get("update_id", "")).startswith("e")
        limit = MAX_RESULT if evaluates else self._max_bytes
        return self._chunk(parse_chunk(message, max_update_bytes=limit), site, now)

    def expire(self, now: float) -> None:
        """Drop uploads that are unfinished for longer than `UPLOAD_TTL_S`."""
        for upload, (_, since) in self._journal.unfinished_uploads().items():
            if now - since > UPLOAD_TTL_S:
                self._drop(upload)

    def _drop(self, upload: str) -> None:
        self._journal.drop_chunks(upload)  # first: a file without rows is removed at the next start
        self._spool.drop(upload)

    def _short_message(
        self, message: Message, site: str
    ) -> TaskRefused | DuplicateArrived | EnrolmentRequested:
        if (reason := message.headers.get(DEAD_REASON)) is not None:
            raise WireError(f"a worker of site {site} cannot read this task: {reason}"[:500])
        if kind_of(message.body) == "Enrolment":
            return self._enrolment(unpack(Enrolment, message.body)[0], site)
        refusal, _ = unpack(TaskRefusal, message.body)
        if self._journal.receipt(refusal.task_id):
            return DuplicateArrived(
                refusal.task_id
            )  # redelivered, or the task was closed meanwhile
        return TaskRefused(
            refusal.task_id,
            refusal.attempt,
            refusal.client_id,
            site,
            refusal.reason,
            bool(refusal.declines),
        )

    def _enrolment(self, enrolment: Enrolment, site: str) -> EnrolmentRequested:
        allowed = self.allowances.get(site)
        if allowed is None:
            raise WireError(f"site {site} was not invited to bring clients of its own")
        return EnrolmentRequested(
            client_id=enrolment.client_id,
            site=site,
            rows=enrolment.rows,
            max_clients=allowed.max_clients,
            max_rows=allowed.max_rows,
            nonce=enrolment.nonce,
            shares_updates=bool(enrolment.shares_updates),
        )

    def _chunk(self, chunk: Chunk, site: str, now: float) -> Arrival:
        if self._journal.receipt(task_id := _task_of(chunk)):
            return Arrival(DuplicateArrived(task_id))  # a repeated update needs no disk
        upload = upload_name(site, chunk.total_sha256)
        self._check_upload(upload, site)
        self._spool.write(upload, chunk.offset, chunk.data)
        arrived = self._journal.put_chunk(upload, chunk.index, len(chunk.data), site, now)
        if arrived < chunk.count:
            return Arrival()
        try:
            return Arrival(self._answer(upload, site, task_id), upload)
        except WireError:
            self._drop(upload)
            raise

    def _check_upload(self, upload: str, site: str) -> None:
        if upload in self._journal.unapplied_uploads():
            raise WireError("the chunk belongs to an update that is accepted already")
        unfinished = self._journal.unfinished_uploads()
        of_site = sum(owner == site for owner, _ in unfinished.values())
        if upload not in unfinished and of_site >= UPLOADS_PER_SITE:
            raise WireError(f"site {site} has {of_site} unfinished updates")

    def _answer(
        self, upload: str, site: str, task_id: str
    ) -> UpdateArrived | EvaluationArrived | DuplicateArrived:
        frame = self._spool.frame(upload)
        match kind_of(frame):
            case "Update":
                return self._update(frame, upload, site)
            case "EvalResult":
                return self._result(frame, site, task_id)
            case kind:
                problem = f"expected an Update or an EvalResult, the chunks hold {kind[:40]!r}"
                raise WireError(problem)

    def _result(self, frame: bytes, site: str, task_id: str) -> EvaluationArrived:
        if len(frame) > MAX_RESULT:
            raise WireError(f"an EvalResult of {len(frame)} bytes is over {MAX_RESULT}")
        result, data = unpack(EvalResult, frame)
        if data:
            raise WireError(f"{len(data)} bytes follow an EvalResult, which has no data")
        if result.task_id != task_id:  # which has no receipt
            raise WireError(f"the chunks of {task_id} hold an EvalResult of {result.task_id}")
        return EvaluationArrived(result, site)

    def _update(self, frame: bytes, upload: str, site: str) -> UpdateArrived | DuplicateArrived:
        update, data = unpack(Update, frame)
        if update.sha256 != codec.digest(data):
            raise WireError("the tensors do not have the SHA-256 that the header declares")
        if self._journal.receipt(update.task_id):
            return DuplicateArrived(update.task_id)
        norm, problem = self._inspect(update, data)
        return UpdateArrived(
            task_id=update.task_id,
            attempt=update.attempt,
            client_id=update.client_id,
            worker_id=update.worker_id,
            site=site,
            phase=update.phase,
            base_version=update.base_version,
            stats=update.stats,
            norm=norm,
            problem=problem,
            nbytes=len(frame),
            upload=upload,
        )

    def _inspect(self, update: Update, data: memoryview) -> tuple[float, Rejection | None]:
        if update.schema_version == 1 and not self._schema1:
            problem = "the update has schema version 1, but its task has version 2"
            return 0.0, Rejection(RejectionKind.TENSORS, problem)
        try:
            tensors = decode_delta(update, data, self._layout_of(update.client_id))
        except WireError as error:
            return 0.0, Rejection(RejectionKind.TENSORS, error.what)
        return admission.check_tensors(tensors)

    def _layout_of(self, client_id: str) -> TensorLayout:
        if self._update_layout is None:
            return self._layout
        return self._update_layout(self._layout, client_id)


def _task_of(chunk: Chunk) -> str:
    match = _UPDATE_ID.match(chunk.update_id)
    if not match:
        raise WireError(f"update id {chunk.update_id[:40]!r} is not TASK.ATTEMPT")
    return match[1]
