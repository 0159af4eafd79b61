"""Writer of a step of the core: version files, the journal's transaction, files for people.

Order of the writes (docs/protocol.md has the crash table): a new version is written under a
temporary name, the transaction records it, then it gets its number; superfluous files go last. On
the path of an update this comes after `coordinator/service.py`; next is
`coordinator/storage/commit.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass

from common.evaluation.federated import FederatedEvaluation, federated_evaluations
from common.protocol.feed import Event
from common.protocol.versions import VersionSummary
from common.protocol.wire import pack
from coordinator.aggregation.noise import NoiseSeeds, secret_seed
from coordinator.core import event_text, tasks
from coordinator.core.evaluations import row_limit
from coordinator.core.events import (
    AcceptEvaluation,
    AcceptUpdate,
    Action,
    CloseRound,
    CommitVersion,
    IssueEvaluation,
    IssueTask,
    LogEvent,
)
from coordinator.core.state import BufferedUpdate, CoordinatorState, OpenEvaluation
from coordinator.storage import retention
from coordinator.storage.cached_updates import CachedUpdates
from coordinator.storage.candidates import Candidates
from coordinator.storage.commit import write_version
from coordinator.storage.jsonl import JsonlFiles
from coordinator.storage.kept_updates import KeptUpdates, kept_file
from coordinator.storage.run import Run
from coordinator.storage.spool import Spool


@dataclass(frozen=True)
class WrittenStep:
    """Versions that a step has made, by number, and its entries of the event feed."""

    summaries: Mapping[int, VersionSummary]
    events: tuple[Event, ...]


class StepWriter:
    """Writer of the steps of one coordinator to the run directory."""

    def __init__(
        self,
        run: Run,
        spool: Spool,
        candidates: Candidates,
        noise_seeds: NoiseSeeds = secret_seed,
    ) -> None:
        self._noise_seeds = noise_seeds
        self._run, self._plan, self._journal = run, run.plan, run.journal
        self._versions, self._spool, self._candidates = run.versions, spool, candidates
        self._kept = KeptUpdates(run.directory, spool)
        self._cached = CachedUpdates(run.plan, self._kept)
        self._jsonl = JsonlFiles(run.directory, run.plan.phases)
        self._losses = retention.RunningLosses(run.plan)
        self._dropped: tuple[BufferedUpdate, ...] = ()  # whose files `clean_up` removes
        self._evaluations: tuple[FederatedEvaluation, ...] | None = None  # None: not up to date

    def start(self, version: int) -> None:
        """Finish what a crash has interrupted, and remove files without a row.

        `version` is the newest version. Raises `FencedError` and `RunError`, as `write` does.
        """
        with self._journal.fenced():
            self._versions.roll_forward(self._journal.version_digests())
            self._versions.sweep(version)
            self._kept.roll_forward(self._journal.kept_updates())
            if self._cached.enabled:
                self._kept.sweep(set(self._journal.kept_updates().values()))
            self._spool.sweep(
                self._journal.unapplied_uploads() | self._journal.unfinished_uploads().keys()
            )
        self._cached.load(self._journal)
        begun = self._plan.phase_end(self._plan.phase_before(version) - 1)
        for summary in self._journal.each_version(after=begun):  # of the newest phase
            self._losses.add(summary)
        self._jsonl.repair(self._journal)

    def write(
        self,
        before: CoordinatorState,
        after: CoordinatorState,
        actions: tuple[Action, ...],
        now: float,
        upload: str = "",
    ) -> WrittenStep:
        """Make a step durable; `upload` is the one that the step has decided on, if any.

        Raises:
            FencedError: Another coordinator took over.
            RunError: The disk refuses.
        """
        commits = [action for action in actions if isinstance(action, CommitVersion)]
        private = self._plan.privacy.enabled
        seeds = {c.version: self._noise_seeds(c.version) if private else b"" for c in commits}
        new = {c.version: self._write_version(c, now, seeds[c.version]) for c in commits}
        dropped = tuple(update for commit in commits for update in self._cached.apply(commit))
        if self._run.keep_updates:
            dropped = ()
        described = [event_text.describe(action, before.version, new) for action in actions]
        entries = tuple(entry for entry in described if entry is not None)
        records = tuple(a for a in actions if not isinstance(a, LogEvent)) + entries
        if any(isinstance(action, AcceptEvaluation) for action in actions):
            self._evaluations = None
        if records or upload or before.clients is not after.clients:
            self._journal.write(
                before,
                after,
                records,
                now,
                frames=self._task_frames(after, actions, new, now),
                summaries=new,
                drop_chunks=[upload] if upload else [],
                keep_updates=self._run.keep_updates or self._cached.enabled,
                drop_updates=dropped,
                noise_seeds=seeds if private else {},
            )
        for summary in new.values():  # the row is fenced: from here on the number is its own
            self._versions.place(summary.version, summary.sha256)
            self._losses.add(summary)
        self._dropped += dropped
        return WrittenStep(new, tuple(event_text.to_event(entry, now) for entry in entries))

    def clean_up(self, actions: Iterable[Action], upload: str, in_use: Set[int]) -> None:
        """Remove the files that a written step has made superfluous.

        `in_use` holds the versions that workers may still fetch, and those that buffered updates
        were trained from.
        """
        accepted = {a.update.upload for a in actions if isinstance(a, AcceptUpdate)}
        if upload and upload not in accepted:
            self._spool.drop(upload)
        for action in actions:
            if isinstance(action, CommitVersion):
                self._remove_applied_updates(action)
                self._remove_old_versions(action.version, in_use)

    def append_lines(self, written: WrittenStep, actions: Iterable[Action]) -> None:
        """Append the lines of new versions and ended evaluations to the files for people."""
        ended = [(each.version, each.phase) for each in actions if isinstance(each, CloseRound)]
        if written.summaries or ended:
            self._jsonl.append(self._journal, written.summaries.values(), ended)

    def _write_version(self, commit: CommitVersion, now: float, seed: bytes) -> VersionSummary:
        return write_version(
            *(commit, self._run.rule, self._versions, self._spool, now),
            begins_phase=commit.version - 1 == self._plan.phase_end(commit.phase - 1),
            noise_seed=seed,
            cached=self._cached.deltas(commit),
        )

    def _task_frames(
        self,
        after: CoordinatorState,
        actions: tuple[Action, ...],
        new: Mapping[int, VersionSummary],
        now: float,
    ) -> dict[str, bytes]:
        """Return the messages of a step's tasks and evaluations, by task id."""

        def version(number: int) -> VersionSummary:  # those of this step are not journaled yet
            return new[number] if number in new else self._journal.version(number)

        frames = {}
        for action in actions:
            if isinstance(action, IssueTask):
                message = tasks.task_message(
                    self._plan, self._run.template, action.task, version, now
                )
                frames[action.task.task_id] = pack(message)
            elif isinstance(action, IssueEvaluation):
                evaluation = action.evaluation
                frames[evaluation.task_id] = self._evaluation_frame(after, evaluation, version, now)
        return frames

    def _evaluation_frame(
        self,
        after: CoordinatorState,
        evaluation: OpenEvaluation,
        version: Callable[[int], VersionSummary],
        now: float,
    ) -> bytes:
        scored = next((u for u in after.buffer if u.task_id == evaluation.candidate), None)
        message = tasks.evaluation_message(
            self._plan,
            self._run.template,
            evaluation,
            version,
            tasks.Candidate(scored.client_id, self._candidates.ref(scored)) if scored else None,
            row_limit(self._plan, after, evaluation.client_id, evaluation.phase),
            now,
        )
        return pack(message)

    def _remove_applied_updates(self, commit: CommitVersion) -> None:
        updates = {part.update.task_id: part.update for part in commit.parts}
        dropped = {update.task_id: update for update in self._dropped}
        self._dropped = ()
        if self._run.keep_updates or self._cached.enabled:
            staying = [update for task, update in updates.items() if task not in dropped]
            with self._journal.fenced():  # else a file that a successor receives could be moved
                self._kept.put({update.upload: kept_file(update) for update in staying})
                self._kept.drop(kept_file(dropped[task]) for task in dropped.keys() - updates)
            updates = {task: updates[task] for task in updates.keys() & dropped}
        for update in updates.values():
            self._spool.drop(update.upload)

    def _remove_old_versions(self, newest: int, in_use: Set[int]) -> None:
        if self._evaluations is None:
            records = self._journal.evaluations(self._plan.phases)
            self._evaluations = federated_evaluations(records)
        kept = retention.versions_to_keep(
            *(self._plan, newest, self._run.keep_versions, in_use, self._losses),
            self._evaluations,
        )
        with self._journal.fenced():  # else a successor's versions would not be kept
            self._versions.retain(kept)
