"""Ledger checker: whether a run counted every update exactly once, and computed every version.

It knows nothing of the implementation: it imports no module of the coordinator, reads the files
of a run directory by their documented names (`ledger_files.py`), and has arithmetic of its own
(`ledger_arithmetic.py`), written from docs/algorithms.md and docs/protocol.md.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.chaos import ledger_arithmetic as arithmetic
from tests.chaos.ledger_arithmetic import Tensors
from tests.chaos.ledger_files import (
    ANY,
    Frame,
    Row,
    RunFiles,
    WorkerRecords,
    read_frame,
    read_run,
    read_workers,
)

KINDS = {"sft": "sft", "dpo": "va", "kto": "kto", "classification": "cls"}
TOLERANCE = 1e-9
"""Relative difference of weights and factors: sums in another order differ in the last bits."""
NORM_TOLERANCE = 1e-6


@dataclass(frozen=True)
class LedgerReport:
    """Result of a check.

    Attributes:
        versions: Versions in the journal, without version 0.
        recomputed: Versions that were recomputed from the updates and are equal to the bit.
        updates: Updates that are in versions.
        buffered: Accepted updates that wait for a version.
        receipts: Tasks for which workers have recorded an accepted receipt.
        problems: What is wrong, a sentence each; empty if everything is right.
    """

    versions: int
    recomputed: int
    updates: int
    buffered: int
    receipts: int
    problems: tuple[str, ...]


def check(
    run: Path, workers: Sequence[Path] = (), *, witness: Path | None = None, finished: bool = True
) -> LedgerReport:
    """Compare what versions contain with what workers have sent and have receipts for.

    Args:
        run: Run directory. While a coordinator writes to it, the result may be out of date.
        workers: What workers have recorded themselves: state directories (`sent.jsonl` of an
            invited site, `RUN/slots/`), and files with the output of workers, in lines or JSON.
        witness: Directory with the frames and receipts of all workers that took part, written by
            `tests/chaos/witness.py`.
        finished: Whether the run is over: then the buffer and the spool have to be empty, and no
            task may be open.

    Versions are recomputed from the frames of the witness, else from those that the coordinator has
    kept (`run.keep_updates`). A sender is required for every update if there is a witness, or if
    every one of `workers` is the state of an invited site.
    """
    files = read_run(run)
    records = read_workers(files.run_id, workers, witness)
    problems = [
        *_check_numbers(files),
        *_check_lines(files),
        *_check_applied_once(files),
        *_check_receipts(files, records),
        *_check_senders(files, records),
        *_check_weights(files),
        *_check_end(files, finished),
        *_check_files(files, workers),
    ]
    recomputed = _recompute(files, records, problems)
    if witness is not None and recomputed < len(files.versions) - 1:
        problems.append(f"only {recomputed} of {len(files.versions) - 1} versions are recomputed")
    applied = {u["task_id"] for version in files.versions for u in version["updates"]}
    accepted = [
        task
        for task, receipts in records.receipts.items()
        if any(state == "accepted" for _, state in receipts)
    ]
    return LedgerReport(
        versions=len(files.versions) - 1,
        recomputed=recomputed,
        updates=len(applied),
        buffered=sum(row["version"] is None for row in files.accepted),
        receipts=len(accepted),
        problems=tuple(problems),
    )


# The coordinator's account in itself


def _check_numbers(run: RunFiles) -> Iterator[str]:
    numbers = [version["version"] for version in run.versions]
    if numbers != [version["row"] for version in run.versions]:
        yield f"rows of versions hold other versions: {numbers}"
    missing = set(range(max(numbers, default=0) + 1)) - set(numbers)
    yield from (f"version {number} is missing in the journal" for number in sorted(missing))
    for version in run.versions[1:]:
        if not version["updates"]:
            yield f"version {version['version']} has no update"
    newest = numbers[-1] if numbers else 0
    if not run.version_path(newest).exists():
        yield f"version {newest}, the newest one, is not on the disk"


def _check_lines(run: RunFiles) -> Iterator[str]:
    """Compare the files for people with the journal."""
    progress = [(line["version"], line["sha256"], line["updates"]) for line in run.lines(PROGRESS)]
    rows = [
        (version["version"], version["sha256"], [u["task_id"] for u in version["updates"]])
        for version in run.versions
    ]
    if progress != rows:
        different = {line[0] for line in progress if line not in rows}
        different |= {row[0] for row in rows if progress.count(row) != 1}
        yield f"{PROGRESS} differs from the journal in versions {sorted(different)}"
    metrics = Counter((line["version"], line["task_id"]) for line in run.lines(METRICS))
    applied = Counter((number, task) for number, _, tasks in rows for task in tasks)
    for (number, task), count in (metrics - applied).items():
        yield f"{METRICS} has {count} lines too many of {task} in version {number}"
    for number, task in applied - metrics:
        yield f"{METRICS} lacks the line of {task} in version {number}"


def _check_applied_once(run: RunFiles) -> Iterator[str]:
    versions = defaultdict[str, list[int]](list)
    for version in run.versions:
        for update in version["updates"]:
            versions[update["task_id"]].append(version["version"])
    for task, numbers in versions.items():
        if len(numbers) > 1:
            yield f"the update of {task} is in the versions {numbers}"
    rows = {row["task_id"]: row for row in run.accepted}
    for task, numbers in versions.items():
        row = rows.get(task)
        if row is None:
            yield f"version {numbers[0]} holds {task}, which was never accepted"
        elif row["version"] not in numbers:
            yield f"{task} is in version {numbers[0]}, its row says {row['version']}"
    for task, row in rows.items():
        if row["version"] is not None and task not in versions:
            yield f"{task} is marked as applied in version {row['version']}, which lacks it"
        if run.receipts.get(task) != (row["attempt"], "accepted"):
            yield f"the accepted update of {task} has the receipt {run.receipts.get(task)}"
    for task, (_, state) in run.receipts.items():
        if state == "accepted" and task not in rows:
            yield f"{task} has an accepted receipt, but no update was accepted"


def _check_end(run: RunFiles, finished: bool) -> Iterator[str]:
    if not finished:
        return
    yield from (f"task {task} is open" for task in run.open_tasks)
    for row in run.accepted:
        if row["version"] is None:
            yield f"the update of {row['task_id']} was accepted and is in no version"
    yield from (f"the upload {upload} is unfinished" for upload in sorted(run.uploads))


# The workers' accounts


def _check_receipts(run: RunFiles, records: WorkerRecords) -> Iterator[str]:
    """Check that the journal keeps its word: a receipt that a worker has read is in it."""
    rows = {row["task_id"]: row for row in run.accepted}
    for task, receipts in records.receipts.items():
        states = {state for _, state in receipts}
        if len(states) > 1:
            yield f"workers have both an accepted and a rejected receipt for {task}"
        for attempt, state in sorted(receipts):
            own = run.receipts.get(task)
            if own is None:
                yield f"a worker has a receipt for {task} ({state}), the journal has none"
            elif own[1] != state or attempt not in (ANY, own[0]):
                yield f"a worker's receipt for {task} is {attempt}, {state}; the journal's {own}"
            if state == "accepted" and task not in rows:
                yield f"a worker's accepted update of {task} is lost"


def _check_senders(run: RunFiles, records: WorkerRecords) -> Iterator[str]:
    """Check that the content of every accepted update is what a worker has sent for the task."""
    for row in run.accepted:
        task, attempt = row["task_id"], row["attempt"]
        sent = records.sent.get((task, attempt), set())
        if sent and _digest(row) not in sent:
            yield f"the accepted update {task}.{attempt} is not the one that its worker sent"
        elif not sent and records.complete:
            yield f"no worker has sent the accepted update {task}.{attempt}"


def _digest(row: Row) -> str:
    return str(row["upload"]).rpartition(".")[2]


# Weights


def _check_weights(run: RunFiles) -> Iterator[str]:
    """Recompute every factor of every step from the recorded losses, counts, norms and measures."""
    config = run.config["aggregation"]
    rows = {row["task_id"]: row for row in run.accepted}
    taken = Counter[str]()
    newest: dict[str, Row] = {}
    measures: dict[str, float] = {}
    norms: list[float] = []
    phase = 0
    for version in run.versions[1:]:
        if version["phase"] != phase:
            phase, newest, measures, norms = version["phase"], {}, {}, []
        updates = [u for u in version["updates"] if u["task_id"] in rows]
        for update in updates:
            row = rows[update["task_id"]]
            clip = arithmetic.clip(config, norms, row["norm"])
            yield from _compare(version, update, "clip", clip)
            norms.append(row["norm"] * clip)
            newest[update["client_id"]] = row["stats"]
        own = Counter(u["client_id"] for u in updates)
        last = {u["client_id"]: u["task_id"] for u in updates}
        measured = {c: run.scores[task] for c, task in last.items() if task in run.scores}
        if len(own) == 1:  # a score of the client's earlier update says nothing of this one
            (client,) = own
            known = {c: m for c, m in measures.items() if c != client} | measured
            weight = arithmetic.client_weights(config, newest, known)[client]
            weights = {client: arithmetic.bounded(len(newest) * weight)}
        else:
            stats = {c: rows[task]["stats"] for c, task in last.items()}
            weights = arithmetic.client_weights(config, stats, measured)
            total = math.fsum(u["weight"] for u in version["updates"])
            if abs(total - 1) > TOLERANCE:
                yield f"the weights of version {version['version']} add up to {total!r}"
        measures |= measured
        counts = {c: 1.0 + n for c, n in taken.items()}
        counts |= {c: counts.get(c, 1.0) + n / 2 for c, n in own.items()}
        mean = math.fsum(counts.values()) / len(counts)
        for update in updates:
            client = update["client_id"]
            staleness = version["version"] - 1 - update["base_version"]
            factors = {
                "weight": weights[client] / own[client],
                "staleness": staleness,
                "staleness_factor": (1 + staleness) ** -config["staleness_exponent"],
                "participation_factor": arithmetic.bounded(mean / counts[client]),
            }
            for name, value in factors.items():
                yield from _compare(version, update, name, value)
            names = ("weight", "staleness_factor", "participation_factor", "clip")
            product = math.prod([*(update[name] for name in names), config["server_lr"]])
            yield from _compare(version, update, "coefficient", product)
        taken.update(own)


def _compare(version: Row, update: Row, name: str, expected: float) -> Iterator[str]:
    if not math.isclose(update[name], expected, rel_tol=TOLERANCE, abs_tol=1e-12):
        where = f"{update['task_id']} in version {version['version']}"
        yield f"{name} of {where} is {update[name]!r} instead of {expected!r}"


# Versions


def _recompute(run: RunFiles, records: WorkerRecords, problems: list[str]) -> int:
    """Recompute the versions one from the other; return how many are equal to the bit."""
    rows = {row["task_id"]: row for row in run.accepted}
    codec, count = run.config["codec"]["adapter"], 0
    tensors: Tensors | None = None
    for version in run.versions:
        number = version["version"]
        on_disk = run.tensors(number)
        if on_disk is not None and not _has_digest(run, version, on_disk):
            problems.append(f"the files of version {number} do not have its digest")
        if number and tensors is not None:
            tensors = _step(run, records, version, tensors, rows, problems)
        if tensors is not None:
            tensors, _ = arithmetic.as_broadcast(codec, tensors)
            if _equal(run, version, tensors, on_disk):
                count += 1
            else:
                problems.append(f"version {number} is not the sum of its updates")
        tensors = tensors if on_disk is None else on_disk
    return count


def _equal(run: RunFiles, version: Row, tensors: Tensors, on_disk: Tensors | None) -> bool:
    if on_disk is None:
        return _has_digest(run, version, tensors)
    same = on_disk.keys() == tensors.keys()
    return same and all(np.array_equal(on_disk[name], tensors[name]) for name in tensors)


def _has_digest(run: RunFiles, version: Row, tensors: Tensors) -> bool:
    """Return whether tensors are those that the journal names; unknown in a run of schema 1."""
    codec, number = run.config["codec"]["adapter"], version["version"]
    digest = arithmetic.broadcast_digest(number, codec, tensors)
    return not run.has_layout or digest == str(version["sha256"])


def _step(
    run: RunFiles,
    records: WorkerRecords,
    version: Row,
    tensors: Tensors,
    rows: dict[str, Row],
    problems: list[str],
) -> Tensors | None:
    """Return the sum of a version and its successor's updates; None if one of them is unknown."""
    steps = []
    for update in version["updates"]:
        row = rows.get(update["task_id"])
        frame = row and _frame(run, records, row)
        if not row or not frame:
            return None
        problems += _check_frame(run, frame, update, row)
        shapes = [(name, tensors[name].shape) for name in sorted(tensors)]
        delta = arithmetic.decode(frame.header["codec"], frame.payload, shapes)
        if not math.isclose(arithmetic.norm(delta), row["norm"], rel_tol=NORM_TOLERANCE):
            problems.append(f"the norm of {row['task_id']} is not {row['norm']!r}")
        steps.append((update["coefficient"], delta))
    return arithmetic.add(tensors, steps)


def _frame(run: RunFiles, records: WorkerRecords, row: Row) -> Frame | None:
    path = records.frames.get(_digest(row))
    if path is None and row["task_id"] in run.kept:
        path = run.directory / "updates" / run.kept[row["task_id"]]
    return read_frame(path) if path is not None and path.exists() else None


def _check_frame(run: RunFiles, frame: Frame, update: Row, row: Row) -> Iterator[str]:
    task, header = update["task_id"], frame.header
    if frame.sha256 != _digest(row):
        yield f"the update of {task} does not have the digest {_digest(row)}"
    for name in ("task_id", "client_id", "base_version"):
        if header[name] != update[name]:
            yield f"{name} of {task} is {header[name]!r} in the update, {update[name]!r} in the run"
    kind = KINDS[run.config["phase"][header["phase"]]["objective"]]
    dealt = run.rows.get(update["client_id"], {}).get(kind, math.inf)
    for name, reported in header["stats"].items():
        # A client counts at most the rows that it was dealt.
        value = min(reported, dealt) if name == "num_samples" else reported
        if value != update.get(name) or value != row["stats"].get(name):
            yield f"{name} of {task} is not what its client has reported"


# Files

PROGRESS, METRICS = "progress.jsonl", "client_metrics.jsonl"


def _check_files(run: RunFiles, workers: Sequence[Path]) -> Iterator[str]:
    known = {version["version"] for version in run.versions}
    for path in sorted((run.directory / "versions").iterdir()):
        if not path.name.isdigit() or int(path.name) not in known:
            yield f"{path.name} in versions/ is no version"
    waiting = {row["upload"] for row in run.accepted if row["version"] is None}
    for path in sorted((run.directory / "spool").glob("*")):
        if path.name not in waiting | run.uploads:
            yield f"{path.name} was left in the spool"
    for upload in sorted(waiting):
        if not (run.directory / "spool" / upload).exists():
            yield f"the spool lacks {upload}, which waits for a version"
    stored = {path.name for path in (run.directory / "updates").glob("*")}
    yield from (f"{name} in updates/ has no row" for name in sorted(stored - {*run.kept.values()}))
    yield from (f"updates/ lacks {name}" for name in sorted({*run.kept.values()} - stored))
    for root in (run.directory, *(path for path in workers if path.is_dir())):
        for path in root.rglob("*"):
            if path.name.startswith((".tmp-", ".made-")) or path.suffix in (".tmp", ".partial"):
                yield f"the temporary file {path} was left"
    if (partial := run.directory.with_name(f".{run.directory.name}.partial")).exists():
        yield f"{partial} was left"
