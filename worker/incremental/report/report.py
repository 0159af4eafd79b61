"""Report on what clients learned from live input, as document blocks and as JSON values. Pure.

`history` reads the figures, `plots` draws the pictures, and `common/document/blocks.py` renders the
blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from common.document.blocks import Block, BulletList, Heading, Paragraph, Picture, Table
from common.document.files import replace_non_finite
from worker.incremental.report.history import BatchRecord, ClientHistory, LearningStream
from worker.incremental.report.stream import (
    OWN,
    StreamFigures,
    TaskSpan,
    performance_over_time,
    stream_figures,
)

MISSING = "–"
_MAX_BATCHES = 30  # in a table; the JSON file has all
_MAX_REASONS = 20

TITLES = {"accuracy": "accuracy, higher is better", "loss": "loss in nats, lower is better"}


def blocks(histories: Sequence[ClientHistory]) -> list[Block]:
    return [
        Heading("What was learned from live input", 1),
        Paragraph(
            "Figures of the inboxes on this machine. Forgetting is how far a task fell from its"
            " best; backward transfer is how far it has risen since it was learned. Both are means"
            " over all tasks but the last; the client's own data are the first task."
        ),
        _overview(histories),
        *(block for history in histories for block in _client(history)),
    ]


def fields(histories: Sequence[ClientHistory]) -> dict[str, Any]:
    """Return all figures as JSON values; a number that is not finite becomes null."""
    clients = {history.client: _fields(history) for history in histories}
    values: dict[str, Any] = replace_non_finite({"clients": clients})
    return values


def latest_streams(history: ClientHistory) -> tuple[LearningStream, ...]:
    """Return the streams of the run that learned last, one for each kind of rows."""
    return tuple(each for each in history.streams if each.run == history.streams[-1].run)


def picture_name(client: str, stream: LearningStream) -> str:
    return f"incremental_{client}_{stream.kind}.png"


def task_name(task: str) -> str:
    return task if task != OWN else "own data"


def _overview(histories: Sequence[ClientHistory]) -> Table:
    header = ("client", "waiting", "learned", "settled", "rejected")
    rows = []
    for history in histories:
        items = history.items
        counts = [str(items[state]) for state in ("waiting", "learned", "settled", "rejected")]
        accepted = sum(batch.accepted for each in history.streams for batch in each.batches)
        known = [stream_figures(stream.measurements) for stream in latest_streams(history)]
        forgotten = ", ".join(format_difference(each.forgetting) for each in known) or MISSING
        transfer = ", ".join(format_difference(each.backward_transfer) for each in known) or MISSING
        batches = (str(accepted), str(history.batches - accepted))
        rows.append((history.client, *counts, *batches, forgotten, transfer))
    more = ("batches accepted", "rejected", "forgetting", "backward transfer")
    return Table((*header, *more), tuple(rows))


def _client(history: ClientHistory) -> list[Block]:
    found: list[Block] = [Heading(history.client)]
    if not history.streams:
        found.append(Paragraph("No batch has been tried yet."))
    latest = latest_streams(history)
    for stream in latest:
        found += _stream(history.client, stream)
    if earlier := history.batches - sum(len(stream.batches) for stream in latest):
        found.append(Paragraph(f"The JSON file also has {earlier} batches of earlier runs."))
    refused = [f"{count} × {reason}" for reason, count in history.refused.items()]
    if refused:
        found.append(BulletList("Unusable items", tuple(refused[:_MAX_REASONS])))
    return found


def _stream(client: str, stream: LearningStream) -> list[Block]:
    accepted = [batch for batch in stream.batches if batch.accepted]
    rejected = [batch for batch in stream.batches if not batch.accepted]
    found: list[Block] = [
        Heading(f"Run {stream.run}, {stream.kind} rows", 3),
        Paragraph(f"{len(accepted)} batches accepted, {len(rejected)} rejected."),
    ]
    if stream.measurements:
        known = stream_figures(stream.measurements)
        transfers = (known.forgetting, known.backward_transfer, known.forward_transfer)
        forgetting, backward, forward = map(format_difference, transfers)
        text = (
            f"Metric: {TITLES[known.metric]}. Forgetting {forgetting}, backward transfer"
            f" {backward}, forward transfer {forward}. {MISSING} means not measured."
        )
        picture = Picture(picture_name(client, stream), "Over time")
        found += [Paragraph(text), _matrix(known), picture, _course(stream, known)]
    found.append(_batches(stream.batches))
    if rejected:
        points = [
            f"batch {batch.number} ({task_name(batch.task)}, {batch.items} items): {batch.reason}"
            for batch in rejected[::-1]
        ]
        more = len(points) - _MAX_REASONS
        points[_MAX_REASONS:] = [f"and {more} more"] if more > 0 else []
        found.append(BulletList("Rejected batches, newest first", tuple(points)))
    return found


def _matrix(known: StreamFigures) -> Table:
    header = ("learned (rows), measured (columns)", *(task_name(each.task) for each in known.tasks))
    rows = [
        (_row_title(each), *(format_value(value) for value in row))
        for each, row in zip(known.tasks, known.matrix, strict=True)
    ]
    rows.append(("forgotten", *(format_difference(value) for value in known.forgotten)))
    rows.append(("transferred back", *(format_difference(value) for value in known.transferred)))
    return Table(header, tuple(rows))


def _row_title(task: TaskSpan) -> str:
    if task.task == OWN:
        return "before the stream"
    one = task.first == task.last
    which = f"batch {task.first}" if one else f"batches {task.first} to {task.last}"
    return f"{task.task} ({which})"


def _course(stream: LearningStream, known: StreamFigures) -> Table:
    found = {
        task: dict(points) for task, points in performance_over_time(stream.measurements).items()
    }
    tasks = [each.task for each in known.tasks]
    numbers = sorted({each.batch for each in stream.measurements})[-_MAX_BATCHES:]
    of = {batch.number: batch.task for batch in stream.batches}
    rows = tuple(
        (
            f"{batch} ({task_name(of[batch])})" if batch in of else "before the stream",
            *(format_value(found.get(task, {}).get(batch)) for task in tasks),
        )
        for batch in numbers
    )
    return Table((f"{known.metric} after batch", *(task_name(task) for task in tasks)), rows)


def _batches(batches: Sequence[BatchRecord]) -> Table:
    header = ("batch", "at (UTC)", "task", "items", "held out", "verdict", "new items' loss")
    rows = tuple(
        (
            str(batch.number),
            datetime.fromtimestamp(batch.at, UTC).strftime("%Y-%m-%d %H:%M:%S"),
            task_name(batch.task),
            str(batch.items),
            str(batch.held),
            batch.verdict,
            _change(batch, "new"),
            _change(batch, "anchor"),
            str(batch.steps),
            f"{batch.seconds:.1f}",
        )
        for batch in batches[-_MAX_BATCHES:]
    )
    return Table((*header, "anchors' loss", "steps", "seconds"), rows)


def _change(batch: BatchRecord, what: str) -> str:
    before, after = (format_value(batch.figure(f"{what}_{when}")) for when in ("before", "after"))
    return MISSING if before == after == MISSING else f"{before} → {after}"


def format_value(value: float | None) -> str:
    return MISSING if value is None else f"{value:.3f}"


def format_difference(value: float | None) -> str:
    return MISSING if value is None else f"{value:+.3f}"


def _fields(history: ClientHistory) -> dict[str, Any]:
    return {
        "items": dict(history.items),
        "refused": dict(history.refused),
        "streams": [_stream_fields(stream) for stream in history.streams],
    }


def _stream_fields(stream: LearningStream) -> dict[str, Any]:
    return {
        "run": stream.run,
        "kind": stream.kind,
        **asdict(stream_figures(stream.measurements)),
        "measures": [asdict(each) for each in stream.measurements],
        "batches": [asdict(batch) for batch in stream.batches],
    }
