"""Comparison of a site's log with the coordinator's journal, answer by answer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from common.run_directory.site_journal import JournaledAnswer, SiteJournal
from worker.site.sent_log import SentLog, SentRecord

NORM_TOLERANCE = 1e-6  # relative; both sides add up the same numbers
AGREES = "agrees"


@dataclass(frozen=True)
class AuditRow:
    """An update or the result of an evaluation, and what both sides say about it."""

    kind: str
    task: str
    attempt: int
    client: str
    version: int
    bytes: int
    norm: float | None
    sha256: str
    sent_at: float | None  # by the site's clock; None if its log lacks it
    recorded_at: float | None  # by the coordinator's clock; None if its journal lacks it
    agrees: bool
    status: str


def compare(log: SentLog, journal: SiteJournal) -> list[AuditRow]:
    """Return a row for each answer of the journal's run, those that were sent first."""
    sent = {each.sha256: each for each in reversed(log.sent) if each.run == journal.run}
    recorded = {answer.sha256: answer for answer in journal.answers}
    rows = [_row(each, log, journal, recorded) for each in reversed(sent.values())]
    attempts = {(each.task, each.attempt) for each in sent.values()}
    for answer in journal.answers:
        if answer.sha256 not in sent and (answer.task, answer.attempt) not in attempts:
            status = "accepted by the coordinator, not in the site's log"
            rows.append(_of_journal(answer, status))
    return rows


def _row(
    sent: SentRecord, log: SentLog, journal: SiteJournal, recorded: dict[str, JournaledAnswer]
) -> AuditRow:
    same_task = [each for each in journal.answers if each.task == sent.task]
    answer = recorded.get(sent.sha256) or next(
        (each for each in same_task if each.attempt == sent.attempt), None
    )
    notes = {
        note.receipt for note in log.receipts if (note.run, note.task) == (journal.run, sent.task)
    }
    if answer is not None:
        differences = [*_differences(sent, answer)]
        if "rejected" in notes and answer.attempt == sent.attempt:
            differences.append("the site got a receipt that says rejected")
        status = f"differs: {'; '.join(differences)}" if differences else AGREES
        return _of_log(sent, answer.at, not differences, status)
    receipt = journal.receipts.get(sent.task)
    if same_task:
        status = f"superseded: attempt {same_task[0].attempt} was accepted"
        return _of_log(sent, None, True, status)
    if receipt is None:
        return _of_log(sent, None, False, "sent by the site, not in the coordinator's journal")
    if receipt.accepted or "accepted" in notes:
        status = "the receipt says accepted, but the coordinator's journal has no such answer"
        return _of_log(sent, None, False, status)
    return _of_log(sent, None, True, f"rejected: {receipt.reason}")


def _differences(sent: SentRecord, answer: JournaledAnswer) -> Iterator[str]:
    for name in ("kind", "task", "attempt", "client", "version", "bytes", "sha256"):
        ours, theirs = getattr(sent, name), getattr(answer, name)
        if ours != theirs:
            yield f"{name} {_short(ours)} in the log, {_short(theirs)} in the journal"
    ours, theirs = sent.norm, answer.norm
    if ours is None or theirs is None:
        return
    if abs(ours - theirs) > NORM_TOLERANCE * max(ours, theirs):
        yield f"norm {ours:.8g} in the log, {theirs:.8g} in the journal"


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) < 64 else text[:12]


def _of_log(sent: SentRecord, recorded_at: float | None, agrees: bool, status: str) -> AuditRow:
    return AuditRow(
        kind=sent.kind,
        task=sent.task,
        attempt=sent.attempt,
        client=sent.client,
        version=sent.version,
        bytes=sent.bytes,
        norm=sent.norm,
        sha256=sent.sha256,
        sent_at=sent.at,
        recorded_at=recorded_at,
        agrees=agrees,
        status=status,
    )


def _of_journal(answer: JournaledAnswer, status: str) -> AuditRow:
    return AuditRow(
        kind=answer.kind,
        task=answer.task,
        attempt=answer.attempt,
        client=answer.client,
        version=answer.version,
        bytes=answer.bytes,
        norm=answer.norm,
        sha256=answer.sha256,
        sent_at=None,
        recorded_at=answer.at,
        agrees=False,
        status=status,
    )
