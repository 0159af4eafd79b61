"""Read-only view of a run directory: of a run that is finished, stopped or still running.

Nothing is written and no epoch is taken, so that any process may read a run, also one that was
moved. `coordinator/storage/run.py` opens a run to continue it.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.config import loader
from common.config.config import FederationConfig
from common.errors import RunError, UnknownKeyError
from common.evaluation.federated import best_of_run, federated_evaluations
from common.privacy import PrivacySpending, spending_of
from common.protocol.evaluations import EvaluatorFigures
from common.protocol.feed import Event
from common.protocol.fields import RowKind
from common.protocol.naming import LOCAL_SITE
from common.protocol.tasks import BaseRef, BlobRef, PromptSpec, parse_frozen, parse_prompt
from common.protocol.versions import SampleAnswer, VersionSummary
from common.run_directory import journal_reader as journal
from common.run_directory import samples
from common.run_directory.evaluator_figures import read_evaluator_figures
from common.run_directory.journal_tables import check_supported
from common.run_directory.records import (
    AcceptedUpdate,
    AttemptRecord,
    ClientRecord,
    EvaluationRecord,
    ReceiptRecord,
    RoundRecord,
    ScoreRecord,
    WarmStart,
)

if TYPE_CHECKING:
    from common.protocol.tensors import Tensors

CONFIG_FILE = "federation.toml"


@dataclass(frozen=True)
class RecordedRun:
    """A run at the moment it was read. Records with a time are sorted by it.

    Attributes:
        adapter_config: `adapter_config.json` of every version, or `config.json` if all parameters
            are trained.
        start: The adapter with which the run began; None if version 0 is a fresh adapter, which
            computes the same as the base model.
    """

    directory: Path
    config: FederationConfig  # with which the run began, without addresses
    run_id: str
    software: str  # the release of fccl that began it
    base: BaseRef
    labels: tuple[str, ...]  # class names of a run that classifies
    prompt: PromptSpec | None  # None: classification, or the Alpaca form of earlier releases
    rows: Mapping[str, Mapping[RowKind, int]]  # of the coordinator's own clients, for training
    sources: Mapping[str, Any]  # `learning.data.sources.SourceSummary` by kind, as JSON values
    adapter_config: Mapping[str, Any]
    clients: Mapping[str, ClientRecord]  # all that ever took part
    versions: tuple[VersionSummary, ...]  # including those that are no longer on the disk
    events: tuple[Event, ...]  # the journal drops the oldest of very many
    attempts: tuple[AttemptRecord, ...]
    receipts: tuple[ReceiptRecord, ...]
    updates: tuple[AcceptedUpdate, ...]
    samples: tuple[SampleAnswer, ...]  # answers to held-out rows
    start: WarmStart | None = None
    layout: str | None = None  # digest of the tensor layout; None for a run of schema 1
    frozen: BlobRef | None = None  # frame of the tensors that all versions share, if any
    evaluations: tuple[EvaluationRecord, ...] = ()  # by clients, of versions
    scores: tuple[ScoreRecord, ...] = ()  # of updates
    rounds: tuple[RoundRecord, ...] = ()  # evaluations of versions that became due
    evaluators: tuple[EvaluatorFigures, ...] = ()  # figures of plug-ins

    @property
    def started_at(self) -> float:
        """The time of the first event or task, in seconds since the epoch.

        Version 0 is older: it may have waited for a base model, or for a worker.
        """
        parts = (self.events, self.attempts)
        return min((part[0].at for part in parts if part), default=self.versions[0].at)

    @property
    def ended_at(self) -> float:
        """The time of the last record, in seconds since the epoch."""
        parts = (self.versions, self.events, self.attempts, self.receipts, self.updates)
        return max(part[-1].at for part in (*parts, self.samples) if part)

    @property
    def best_version(self) -> int | None:
        """The best version by the clients' evaluations in the newest phase that has any."""
        return best_of_run(federated_evaluations(self.evaluations))

    @property
    def phase_ends(self) -> tuple[int, ...]:
        """The last version of each phase of the plan."""
        return tuple(accumulate(phase.versions for phase in self.config.phase))

    @property
    def total_versions(self) -> int:
        """The number of versions in the plan, without version 0."""
        return self.phase_ends[-1]

    def privacy(self, version: int) -> PrivacySpending | None:
        """Return what was spent of a client's privacy up to a version; None without it."""
        made = [each for each in self.versions if each.version <= version]
        shares = Counter(update.client_id for each in made for update in each.updates)
        most = max(shares.values(), default=0)
        return spending_of(self.config.privacy, most, self.phase_ends[-1] - version)

    def version_directory(self, version: int) -> Path:
        """Return the directory of a version, which need not exist."""
        return self.directory / "versions" / f"{version:06d}"

    def versions_on_disk(self) -> tuple[int, ...]:
        numbers = (summary.version for summary in self.versions)
        return tuple(number for number in numbers if self.version_directory(number).is_dir())

    def choose_version(self, version: int | None) -> int:
        """Return a version that is on the disk, the newest one for None; else raise `RunError`."""
        present = self.versions_on_disk()
        if not present:
            raise RunError(f"{self.directory} has no version on the disk", "restore versions/")
        if version is None:
            return present[-1]
        if version not in present:
            raise RunError(
                f"version {version} of {self.directory} is not on the disk",
                f"choose one of {format_ranges(present)}",
            )
        return version

    def tensors(self, version: int) -> Tensors:
        """Read the tensors of a version, also of one that is newer than this record.

        Raises:
            RunError: The file is gone or damaged, or its digest is not the journal's.
        """
        # numpy and safetensors are imported here: viewers need no tensors.
        from common.run_directory import version_digests, version_files  # noqa: PLC0415

        directory = self.version_directory(version)
        weights, _ = version_files.file_names(self.adapter_config)
        tensors = version_files.read_tensors(directory / weights)
        digests = version_digests.VersionDigests(
            self.config.codec.adapter, self.frozen, schema1=self.layout is None
        )
        if not digests.are_right(version, tensors, self._summary(version).sha256):
            raise RunError(
                f"{directory} does not have the content that the journal says",
                "choose another --version, or restore the run from a backup",
            )
        return tensors

    def _summary(self, version: int) -> VersionSummary:
        known = next((each for each in self.versions if each.version == version), None)
        if known is not None:
            return known
        path = self.directory / "run.db"
        query = "SELECT summary FROM version WHERE version = ?"
        with journal.translated_errors(path), journal.open_journal(path) as db:
            row = db.execute(query, (version,)).fetchone()
            if row is None:
                raise RunError(f"{path} has no version {version}", "choose another --version")
            return VersionSummary.model_validate_json(row[0])


def read_run(directory: Path) -> RecordedRun:
    """Read a run directory.

    Raises:
        RunError: It holds no run, a damaged one, or one of another release.
        ConfigError: Its configuration is damaged.
    """
    path = directory / "run.db"
    for file in (directory / CONFIG_FILE, path):
        _check_exists(file)
    config = read_config(directory)
    with journal.translated_errors(path), journal.open_journal(path) as db:
        run = _recorded_run(directory, config, db)
    if not run.versions:
        raise RunError(f"{path} has no version yet", "wait until the run has begun")
    return run


def read_config(directory: Path) -> FederationConfig:
    """Return the configuration of a run directory, with default addresses.

    Raises:
        RunError: The directory holds no run, or one of a newer release.
        ConfigError: The file has a wrong value.
    """
    path = directory / CONFIG_FILE
    _check_exists(path)
    try:
        return loader.load(path, {})
    except UnknownKeyError as error:
        raise RunError(
            error.what, "a newer release of fccl began the run: upgrade fccl here"
        ) from None


def _check_exists(path: Path) -> None:
    if not path.exists():
        raise RunError(
            f"{path.parent} holds no run: it has no {path.name}", "name a directory under runs/"
        )


def format_ranges(numbers: Sequence[int]) -> str:
    """Return ascending numbers as text: `0, 4, 7 to 9`."""
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and ranges[-1][-1] == number - 1:
            ranges[-1].append(number)
        else:
            ranges.append([number])
    return ", ".join(
        f"{each[0]} to {each[-1]}" if len(each) > 2 else ", ".join(map(str, each))
        for each in ranges
    )


def _recorded_run(directory: Path, config: FederationConfig, db: sqlite3.Connection) -> RecordedRun:
    meta = dict(db.execute("SELECT key, value FROM meta"))
    check_supported(meta, directory)
    rows: dict[str, dict[RowKind, int]] = json.loads(meta["clients"])
    dealt = {
        name: ClientRecord(client_id=name, site=LOCAL_SITE, rows=own) for name, own in rows.items()
    }
    summaries = db.execute("SELECT summary FROM version ORDER BY version")
    return RecordedRun(
        directory=directory,
        config=config,
        run_id=meta["run_id"],
        software=meta["software"],
        base=BaseRef.model_validate_json(meta["base"]),
        labels=tuple(json.loads(meta["labels"])),
        prompt=parse_prompt(meta),
        rows=rows,
        sources=json.loads(meta["sources"]),
        adapter_config=json.loads(meta["adapter_config"]),
        clients={**dealt, **journal.read_invited_clients(db)},
        versions=tuple(VersionSummary.model_validate_json(line) for (line,) in summaries),
        events=journal.read_events(db),
        attempts=journal.read_attempts(db),
        receipts=journal.read_receipts(db),
        updates=journal.read_updates(db),
        samples=tuple(sorted(samples.read_samples(directory), key=lambda sample: sample.at)),
        start=WarmStart.model_validate_json(meta["start"]) if "start" in meta else None,
        layout=meta.get("layout"),
        frozen=parse_frozen(meta),
        evaluations=journal.read_evaluations(db, config.phase),
        scores=journal.read_scores(db),
        rounds=journal.read_rounds(db),
        evaluators=read_evaluator_figures(directory),
    )
