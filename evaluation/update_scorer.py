"""Scores of updates on the coordinator's held-out rows: contribution source `server`.

The score of an update is the drop in mean loss from its base version θ to θ + cΔ, on the same rows.
Versions are read from the run directory, and updates from its spool. A thread computes the scores
one after another; the coordinator never waits for it, and commits without those that come late.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch

from common.errors import FcclError, RunError
from common.evaluation.sums import mean_loss
from common.memory import release_free_memory
from common.protocol.fields import RowKind
from common.protocol.kinds import EventKind
from common.protocol.layout import TensorLayout
from common.protocol.tensors import Tensors
from common.run_directory.recorded_run import RecordedRun
from coordinator.aggregation.candidate import scored_adapters
from coordinator.aggregation.forms import adapter_forms
from coordinator.core.events import LogEvent, UpdateScore, log_event
from coordinator.scores_source import ScoreRequest, ScoreSource, no_score
from coordinator.storage.spool import Spool
from evaluation.evaluator import HELDOUT, EvaluationRows, Evaluator, find_reward_reference
from learning.evaluation.row_scores import Scores
from learning.training.device import Compute, available_cores

CLOSING_S = 5.0  # for a model that is being loaded
KNOWN_VERSIONS = 64  # whose loss is kept; updates in flight start from the newest few


def scoring_compute() -> Compute:
    """Return the device of scores, in float32: a score is a small difference of two losses.

    On a CPU half of the cores are left to a worker on this machine.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return Compute(device, max(1, available_cores() // 2), autocast=False)


class HeldoutLoss:
    """Mean loss on at most `evaluation.max_rows` held-out rows, by the objective of a phase."""

    def __init__(self, run: RecordedRun, evaluator: Evaluator) -> None:
        """Create it; `evaluator` is that of the run."""
        self._run, self._evaluator = run, evaluator
        self._rows: dict[RowKind, EvaluationRows] = {}
        self._references: dict[tuple[RowKind, int], Scores] = {}
        self._versions: dict[tuple[int, int | None], float] = {}

    def load(self) -> None:
        """Load the model and the rows of the first phase; limit the threads of PyTorch.

        Raises:
            ModelError: The base model cannot be loaded.
            DataError: There are no held-out rows of that kind.
        """
        torch.set_num_threads(self._evaluator.compute.threads)
        self._load_rows(self._run.config.phase[0].kind)

    def of_start(self, version: int, rank: int | None, tensors: Tensors) -> float:
        """Return the loss of a version, or of its components up to a rank, computed once."""
        key = version, rank
        if key not in self._versions:
            if len(self._versions) >= KNOWN_VERSIONS:
                del self._versions[min(self._versions, key=lambda known: known[0])]
            self._versions[key] = self.of_tensors(tensors, version)
        return self._versions[key]

    def of_tensors(self, tensors: Tensors, base: int) -> float:
        """Return the loss of tensors that were trained from version `base`."""
        phase = self._run.config.phase[self._phase_of(base)]
        rows = self._load_rows(phase.kind)
        reference = self._reference(rows, base)
        self._evaluator.load_tensors(tensors)
        scores = self._evaluator.score(rows)
        loss = mean_loss(rows.kind, rows.scorer.sums(rows.examples, scores, reference or scores))
        if loss is None:
            what = f"no held-out rows of kind {phase.kind} fit into model.max_length"
            raise RunError(what, "give other evaluation.rows")
        return loss

    def _phase_of(self, version: int) -> int:
        ends = self._run.phase_ends
        return next((i for i, end in enumerate(ends) if version < end), len(ends) - 1)

    def _load_rows(self, kind: RowKind) -> EvaluationRows:
        if kind not in self._rows:
            limit = self._run.config.evaluation.max_rows
            rows = [(HELDOUT, row) for row in self._evaluator.heldout_rows(kind, limit)]
            self._rows[kind] = self._evaluator.encode(kind, 0, rows)
        return self._rows[kind]

    def _reference(self, rows: EvaluationRows, base: int) -> Scores | None:
        """Return the scores of π_ref; None for kinds that have none."""
        if not rows.has_rewards:
            return None
        version, _ = find_reward_reference(self._run.config.phase, base, rows.kind)
        if (rows.kind, version) not in self._references:
            self._evaluator.load_tensors(self._run.tensors(version))
            self._references[rows.kind, version] = self._evaluator.score(rows)
        return self._references[rows.kind, version]


class UpdateScorer(ScoreSource):
    """Source of `server` scores in a thread of this process.

    After an error every further update has no score.
    """

    def __init__(self, run: RecordedRun, base_path: Path) -> None:
        self._run, self._spool = run, Spool(run.directory / "spool")
        self._forms = adapter_forms(run.config)
        self._loss = HeldoutLoss(run, Evaluator(run, base_path, scoring_compute()))
        self._requests: queue.Queue[ScoreRequest | None] = queue.Queue()
        self._scores: list[UpdateScore] = []
        self._events: list[LogEvent] = []
        self._lock = threading.Lock()
        self._closed, self._failed = threading.Event(), False
        self._thread = threading.Thread(target=self._work, name="scores", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def request(self, requests: Sequence[ScoreRequest]) -> None:
        for each in requests:
            self._requests.put(each)

    def collect(self) -> tuple[list[UpdateScore], list[LogEvent]]:
        with self._lock:
            collected = self._scores, self._events
            self._scores, self._events = [], []
        return collected

    def close(self) -> None:
        self._closed.set()
        self._requests.put(None)
        if self._thread.is_alive():
            self._thread.join(CLOSING_S)

    # in the thread

    def _work(self) -> None:
        self._attempt(self._loss.load)
        while (request := self._requests.get()) is not None and not self._closed.is_set():
            if not self._failed:
                self._attempt(partial(self._score, request))
            if self._failed:
                self._answer(no_score(request))
            release_free_memory()

    def _attempt(self, act: Callable[[], None]) -> None:
        try:
            act()
        except Exception as error:  # no error in scores stops the run
            self._failed = True
            reason = error.what if isinstance(error, FcclError) else repr(error)
            text = f"no more scores of updates: {reason}"
            with self._lock:
                self._events.append(log_event("warning", EventKind.SCORES, text))

    def _answer(self, score: UpdateScore) -> None:
        with self._lock:
            self._scores.append(score)

    def _score(self, request: ScoreRequest) -> None:
        """Score an update, unless the coordinator has applied it meanwhile."""
        started = time.perf_counter()
        form = self._forms.of(request.client_id)
        try:
            version = self._run.tensors(request.base_version)
            layout = form.layout(TensorLayout.of(version))
            delta = self._spool.delta(request.upload, layout)
        except RunError:
            if self._spool.holds(request.upload):
                raise
            self._answer(no_score(request))
            return
        start, candidate = scored_adapters(version, form, request.clip, delta)
        before = self._loss.of_start(request.base_version, form.rank, start)
        after = self._loss.of_tensors(candidate, request.base_version)
        seconds = time.perf_counter() - started
        self._answer(UpdateScore(request.task_id, before - after, seconds))
