"""From a message on an update queue to an event for the core.

Chunks are made durable one by one, so that each can be acked at once and any prefetch works; the
last one turns the whole into a `UpdateArrived`. Nothing here accepts anything: that is admission's
(`coordinator/core/admission.py`), through the core. After `broker` on an update's way.
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
from common.protocol.membership import Enrolment
from common.protocol.tasks import TaskRefusal
from common.protocol.updates import Update
from common.protocol.wire import kind_of, unpack
from coordinator.core import admission
from coordinator.core.events import DuplicateArrived, EnrolmentRequested, TaskRefused, UpdateArrived
from coordinator.storage.journal import Journal
from coordinator.storage.spool import Spool, upload_name

UPLOADS_PER_SITE = 64  # unfinished ones: bounds the disk that one site can fill
UPLOAD_TTL_S = 3600.0
_UPDATE_ID = re.compile(r"([A-Za-z0-9][A-Za-z0-9_-]{0,63})\.[0-9]{1,5}\Z")


@dataclass(frozen=True)
class Arrival:
    """What a message amounted to.

    Attributes:
        event: Something for the core; None while chunks are missing.
        upload: The upload that the event settles; empty for a message that is whole by itself.
    """

    event: UpdateArrived | TaskRefused | DuplicateArrived | EnrolmentRequested | None = None
    upload: str = ""


@dataclass(frozen=True)
class Allowance:
    """What an invitation lets a site bring: clients, and training rows that count of each."""

    max_clients: int
    max_rows: int


class Ingest:
    """Takes messages of the update queues."""

    def __init__(
        self, journal: Journal, spool: Spool, manifest: Mapping[str, tuple[int, ...]]
    ) -> None:
        self._journal = journal
        self._spool = spool
        self._manifest = manifest
        self._allowances: Mapping[str, Allowance] = {}
        # A small tensor is larger as a block of int8 than as fp32. The header has its own limit.
        self._limit = (
            max(codec.payload_bytes(c, manifest) for c in get_args(CodecName)) + 128 * 1024
        )

    def allow(self, allowances: Mapping[str, Allowance]) -> None:
        """What each invited site may bring, from now on."""
        self._allowances = dict(allowances)

    def take(self, message: Message, site: str, user: str, now: float) -> Arrival:
        """Make a message durable and say what it amounted to.

        Args:
            message: From the update queue of `site`.
            site: Whose queue it came from: the broker lets nobody else write there.
            user: The broker user of that site, as vouched for by the broker.
            now: Seconds since the epoch.

        Raises:
            WireError: The message is broken or forged: dead-letter it.
            RunError: The disk refused: do not ack.
        """
        if message.user_id != user:
            raise WireError("the message does not carry the broker-validated user of its site")
        if "chunk_index" not in message.headers:
            return Arrival(self._word(message, site))
        return self._chunk(parse_chunk(message, max_update_bytes=self._limit), site, now)

    def expire(self, now: float) -> None:
        """Forget uploads that were never finished."""
        for upload, (_, since) in self._journal.unfinished_uploads().items():
            if now - since > UPLOAD_TTL_S:
                self.forget(upload)

    def forget(self, upload: str) -> None:
        """Drop an upload that came to nothing, rows first."""
        self._journal.drop_chunks(upload)
        self._spool.drop(upload)

    def _word(
        self, message: Message, site: str
    ) -> TaskRefused | DuplicateArrived | EnrolmentRequested:
        """A message without tensors."""
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
        allowed = self._allowances.get(site)
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
        there = self._journal.put_chunk(upload, chunk.index, len(chunk.data), site, now)
        if there < chunk.count:
            return Arrival()
        try:
            return Arrival(self._candidate(upload, site), upload)
        except WireError:
            self.forget(upload)
            raise

    def _check_room(self, upload: str, site: str) -> None:
        if upload in self._journal.unapplied_uploads():
            raise WireError("the chunk belongs to an update that is accepted already")
        mine = [
            name for name, (owner, _) in self._journal.unfinished_uploads().items() if owner == site
        ]
        if upload not in mine and len(mine) >= UPLOADS_PER_SITE:
            raise WireError(f"site {site} has {len(mine)} unfinished updates")

    def _candidate(self, upload: str, site: str) -> UpdateArrived | DuplicateArrived:
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

    def _inspect(self, update: Update, data: memoryview) -> tuple[float, str]:
        try:
            tensors = codec.decode(update.codec, update.tensors, data)
        except WireError as error:
            return 0.0, error.what
        return admission.check_tensors(tensors, self._manifest)


def _task_of(chunk: Chunk) -> str:
    named = _UPDATE_ID.match(chunk.update_id)
    if not named:
        raise WireError(f"update id {chunk.update_id[:40]!r} is not TASK.ATTEMPT")
    return named[1]
