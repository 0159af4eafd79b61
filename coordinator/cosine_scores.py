"""Scores of contribution source `cosine`, computed by the coordinator itself from its spool."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial

from common.errors import FcclError
from common.protocol.kinds import EventKind
from common.protocol.layout import TensorLayout
from coordinator.aggregation.cosine import cosines_with_others
from coordinator.aggregation.rules.rule import Rule
from coordinator.core.events import LogEvent, UpdateScore, log_event
from coordinator.scores_source import ScoreRequest, ScoreSource, no_score
from coordinator.storage.spool import Spool
from coordinator.storage.versions import Versions


class CosineScores(ScoreSource):
    """Source that compares the updates of a request with each other, at once."""

    def __init__(self, versions: Versions, spool: Spool, rule: Rule) -> None:
        self._versions, self._spool, self._rule = versions, spool, rule
        self._scores: list[UpdateScore] = []
        self._events: list[LogEvent] = []

    def request(self, requests: Sequence[ScoreRequest]) -> None:
        started = time.perf_counter()
        try:
            values = self._cosines(requests)
        except (FcclError, OSError, ValueError) as error:  # no error in scores stops the run
            reason = error.what if isinstance(error, FcclError) else repr(error)
            text = f"no scores of {len(requests)} updates: {reason}"
            self._events.append(log_event("warning", EventKind.SCORES, text))
            self._scores += [no_score(each) for each in requests]
            return
        seconds = (time.perf_counter() - started) / len(requests)
        self._scores += [
            UpdateScore(each.task_id, value, seconds)
            for each, value in zip(requests, values, strict=True)
        ]

    def collect(self) -> tuple[list[UpdateScore], list[LogEvent]]:
        collected = self._scores, self._events
        self._scores, self._events = [], []
        return collected

    def _cosines(self, requests: Sequence[ScoreRequest]) -> list[float]:
        layout = TensorLayout.of(self._versions.read(0))
        readers = [
            partial(
                self._spool.tensors,
                each.upload,
                self._rule.update_layout(layout, each.client_id),
            )
            for each in requests
        ]
        return cosines_with_others([each.client_id for each in requests], readers)
