"""Conversion of the messages on the update queues into events for the core.

Chunks are made durable one by one, so that each can be acked at once and any prefetch works; the
last one turns the whole into an `UpdateArrived`. Nothing is accepted here: that is decided by
`coordinator/core/admission.py`, the next file on the path of an update.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import get_args

from broker.chunks import Chunk, parse_chunk
from broker.dead_letter import DEAD_REASON
from broker.protocol import Message
from common.errors import WireError
from common.protocol import codec
from common.protocol.fields import CodecName
from common.protocol.kinds import RejectionKind
from common.protocol.membership import Enrolment
from common.protocol.tasks import TaskRefusal
from common.protocol.updates import Update
from common.protocol.wire import kind_of, unpack
from coordinator.core import admission
from coordinator.core.events import (
    DuplicateArrived,
    EnrolmentRequested,
    Rejection,
    TaskRefused,
    UpdateArrived,
)
from coordinator.storage.journal import Journal
from coordinator.storage.spool import Spool, upload_name

UPLOADS_PER_SITE = 64
"""Unfinished uploads of one site at most: bounds the disk that it can fill."""
UPLOAD_TTL_S = 3600.0
_UPDATE_ID = re.compile(r"([A-Za-z0-9][A-Za-z0-9_-]{0,63})\.[0-9]{1,5}\Z")


@dataclass(frozen=True)
class Arrival:
    """Result of processing a message.

    Attributes:
        event: An event for the core; None while chunks are missing.
        upload: The upload that the event settles; empty for a message that is whole by itself.
    """

    event: UpdateArrived | TaskRefused | DuplicateArrived | EnrolmentRequested | None = None
    upload: str = ""


@dataclass(frozen=True)
class Allowance:
    """Limits of an invitation: clients of the site, and training rows that count of each."""

    max_clients: int
    max_rows: int


class Ingest:
    """Processor of the messages on one run's update queues.

    Attributes:
        allowances: The limits of each invited site, by name.
    """

    def __init__(self, journal: Journal, spool: Spool) -> None:
        self._journal = journal
        self._spool = spool
        self._shapes: Mapping[str, tuple[int, ...]] = {}
        self._max_bytes = 0
        self.allowances: Mapping[str, Allowance] = {}

    def start(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Process updates of tensors with these shapes, by name, from now on."""
        self._shapes = shapes
        # A small tensor is larger as a block of int8 than as fp32. The header has its own limit.
        payload = max(codec.payload_bytes(name, shapes) for name in get_args(CodecName))
        self._max_bytes = payload + 128 * 1024

    def process(self, message: Message, site: str, user: str, now: float) -> Arrival:
        """Make a message durable, and return what the core has to know of it.

        Args:
            message: A message from the update queue of `site`.
            site: The site of that queue: the broker lets nobody else write there.
            user: The broker user of that site. The broker vouches for the message's own.
            now: Seconds since the epoch.

        Raises:
            WireError: The message is broken or forged: dead-letter it.
            RunError: The disk refused: do not ack.
        """
        if message.user_id != user:
            raise WireError("the message does not carry the broker-validated user of its site")
        if "chunk_index" not in message.headers:
            return Arrival(self._short_message(message, site))
        return self._chunk(parse_chunk(message, max_update_bytes=self._max_bytes), site, now)

    def expire(self, now: float) -> None:
        """Drop uploads that have stayed unfinished for too long."""
        for upload, (_, since) in self._journal.unfinished_uploads().items():
            if now - since > UPLOAD_TTL_S:
                self._drop(upload)

    def _drop(self, upload: str) -> None:
        """Drop an unfinished upload; the rows go first, since a crash leaves files to a sweep."""
        self._journal.drop_chunks(upload)
        self._spool.drop(upload)

    def _short_message(
        self, message: Message, site: str
    ) -> TaskRefused | DuplicateArrived | EnrolmentRequested:
        """Return the event of a message without tensors."""
        if (reason := message.headers.get(DEAD_REASON)) is not None:
            raise WireError(f"a worker of site {site} cannot read this task: {reason}"[:500])
        if kind_of(message.body) == "Enrolment":
            return self._enrolment(unpack(Enrolment, message.body)[0], site)
        refusal, _ = unpack(TaskRefusal, message.body)
        if self._journal.receipt(refusal.task_id):
            return DuplicateArrived(refusal.task_id)  # delivered twice, or settled meanwhile
        return TaskRefused(
            refusal.task_id, refusal.attempt, refusal.client_id, site, refusal.reason
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
        )

    def _chunk(self, chunk: Chunk, site: str, now: float) -> Arrival:
        if self._journal.receipt(task_id := _task_of(chunk)):
            return Arrival(DuplicateArrived(task_id))  # a repeated update needs no disk
        upload = upload_name(site, chunk.total_sha256)
        self._check_room(upload, site)
        self._spool.write(upload, chunk.offset, chunk.data)
        arrived = self._journal.put_chunk(upload, chunk.index, len(chunk.data), site, now)
        if arrived < chunk.count:
            return Arrival()
        try:
            return Arrival(self._update(upload, site), upload)
        except WireError:
            self._drop(upload)
            raise

    def _check_room(self, upload: str, site: str) -> None:
        if upload in self._journal.unapplied_uploads():
            raise WireError("the chunk belongs to an update that is accepted already")
        mine = [
            name for name, (owner, _) in self._journal.unfinished_uploads().items() if owner == site
        ]
        if upload not in mine and len(mine) >= UPLOADS_PER_SITE:
            raise WireError(f"site {site} has {len(mine)} unfinished updates")

    def _update(self, upload: str, site: str) -> UpdateArrived | DuplicateArrived:
        frame = self._spool.frame(upload)
        if (kind := kind_of(frame)) != "Update":
            raise WireError(f"expected an Update, the chunks hold {kind[:40]!r}")
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
        try:
            tensors = codec.decode(update.codec, update.tensors, data)
        except WireError as error:
            return 0.0, Rejection(RejectionKind.TENSORS, error.what)
        return admission.check_tensors(tensors, self._shapes)


def _task_of(chunk: Chunk) -> str:
    match = _UPDATE_ID.match(chunk.update_id)
    if not match:
        raise WireError(f"update id {chunk.update_id[:40]!r} is not TASK.ATTEMPT")
    return match[1]
