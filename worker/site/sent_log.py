"""A site's own log of what it has sent: `sent.jsonl` in the state directory.

Every update and every result of an evaluation has a line, which is on the disk before the first
byte is sent, and another line once its receipt has come. `fccl audit` compares the log with the
coordinator's journal. It never leaves the machine by itself.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from filelock import FileLock
from pydantic import Field, ValidationError

from common.clock import Clock
from common.disk_errors import disk_errors
from common.errors import RunError
from common.files import make_private
from common.protocol import codec
from common.protocol.evaluations import EvalResult
from common.protocol.fields import (
    Count,
    Identifier,
    Record,
    RunId,
    Seconds,
    Sha256,
    ShortText,
    TaskState,
)
from common.protocol.naming import SiteName
from common.protocol.tasks import Receipt
from common.protocol.updates import Update
from common.protocol.wire import explain, kind_of, unpack
from worker.events import GOES_ON

FILE = "sent.jsonl"


class SentRecord(Record):
    """An update, or the result of an evaluation, that a site has sent.

    Attributes:
        version: The update's base version, or the version that was evaluated.
        bytes: Size of the frame, as it was published in chunks.
        norm: L2 norm of the update's tensors as the coordinator decodes them; None for an
            evaluation, and where the worker ended between training and sending.
        sha256: Of the frame.
    """

    at: Seconds
    run: RunId
    site: SiteName
    task: Identifier
    attempt: Count
    client: Identifier
    version: Count
    kind: Literal["update", "evaluation"]
    bytes: Count
    norm: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    sha256: Sha256


class ReceiptNote(Record):
    """Receipt that has come for a task."""

    at: Seconds
    run: RunId
    task: Identifier
    attempt: Count
    receipt: TaskState
    reason: ShortText = ""


@dataclass(frozen=True)
class SentLog:
    """Content of a log."""

    sent: tuple[SentRecord, ...]
    receipts: tuple[ReceiptNote, ...]


@dataclass
class SentLogWriter:
    """Writer of one worker's lines; the workers of a site share the file."""

    state: Path  # directory of the site's work in flight
    run: str
    site: str
    clock: Clock
    _norms: dict[str, float] = field(default_factory=dict, init=False)
    _written: set[str] = field(default_factory=set, init=False)  # digests of frames

    @property
    def path(self) -> Path:
        return self.state / FILE

    def note_norm(self, update_id: str, norm: float) -> None:
        """Keep the norm of an update that is about to be spooled, for its line."""
        self._norms[update_id] = norm

    def append_frame(self, frame: bytes) -> None:
        """Write the line of a frame durably, once in the life of this process.

        Raises:
            DiskError: The file cannot be written.
            WireError: The bytes are neither an update nor the result of an evaluation.
        """
        sha256 = codec.digest(frame)
        if sha256 in self._written:
            return
        answer: Update | EvalResult
        if kind_of(frame) == EvalResult.__name__:
            answer, _ = unpack(EvalResult, frame)
        else:
            answer, _ = unpack(Update, frame)
        is_update = isinstance(answer, Update)
        self._append(
            SentRecord(
                at=self.clock(),
                run=self.run,
                site=self.site,
                task=answer.task_id,
                attempt=answer.attempt,
                client=answer.client_id,
                version=answer.base_version if isinstance(answer, Update) else answer.version,
                kind="update" if is_update else "evaluation",
                bytes=len(frame),
                norm=self._norms.pop(f"{answer.task_id}.{answer.attempt}", None),
                sha256=sha256,
            )
        )
        self._written.add(sha256)

    def append_receipt(self, receipt: Receipt) -> None:
        """Write the line of a receipt; raise `DiskError` if the file cannot be written."""
        self._append(
            ReceiptNote(
                at=self.clock(),
                run=self.run,
                task=receipt.task_id,
                attempt=receipt.attempt,
                receipt=receipt.state,
                reason=receipt.reason,
            )
        )

    def _append(self, record: Record) -> None:
        line = json.dumps(record.fields()).encode() + b"\n"
        with disk_errors(self.path, GOES_ON):
            make_private(self.path.parent)
            with FileLock(self.path.with_name(f".{FILE}.lock")):
                fd = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
                with os.fdopen(fd, "rb+") as file:
                    file.seek(_end_of_lines(file.fileno()))
                    file.truncate()
                    file.write(line)
                    file.flush()
                    os.fsync(file.fileno())


def _end_of_lines(fd: int) -> int:
    """Return the place behind the last whole line; a crash may have left a part of one."""
    end = os.fstat(fd).st_size
    while end and os.pread(fd, 1, end - 1) != b"\n":
        end -= 1
    return end


def read_log(path: Path) -> SentLog:
    """Return the content of a log, without a last line that is incomplete.

    Raises:
        RunError: The file is missing, or one of its lines is damaged.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise RunError(
            f"the log {path} cannot be read: {why}", "name a site's sent.jsonl"
        ) from None
    records = list(_parse(path, text))
    return SentLog(
        tuple(each for each in records if isinstance(each, SentRecord)),
        tuple(each for each in records if isinstance(each, ReceiptNote)),
    )


def _parse(path: Path, text: str) -> Iterator[SentRecord | ReceiptNote]:
    whole, _, _ = text.rpartition("\n")
    for number, line in enumerate(whole.split("\n"), 1):
        if not line:
            continue
        try:
            kind = ReceiptNote if "receipt" in json.loads(line) else SentRecord
            yield kind.model_validate_json(line)
        except (ValueError, TypeError, RecursionError) as error:
            why = explain(error) if isinstance(error, ValidationError) else "not a JSON object"
            raise RunError(
                f"{path}:{number} is not a line of a site's log ({why})", "restore the file"
            ) from None
