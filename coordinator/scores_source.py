"""Source of scores that clients cannot inflate, for updates that wait for the next commit.

The coordinator loads no model. For contribution source `server` its starter passes an
implementation that does (`evaluation/update_scorer.py`, in a child process of `fccl coordinator`);
for `cosine` the service uses `coordinator/cosine_scores.py`. Scores of source `federated` are
evaluations by clients, and need none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from coordinator.core.events import LogEvent, UpdateScore
from coordinator.core.state import BufferedUpdate


@dataclass(frozen=True)
class ScoreRequest:
    """What a source needs to know of an update: `upload` is its file in the spool."""

    task_id: str
    client_id: str
    base_version: int
    clip: float
    upload: str

    @classmethod
    def of(cls, update: BufferedUpdate) -> ScoreRequest:
        return cls(
            update.task_id, update.client_id, update.base_version, update.clip, update.upload
        )


class ScoreSource:
    """Source without scores. Implementations override the methods that they need.

    The coordinator's main loop calls all methods: except for `close` they return soon, and none of
    them raises.
    """

    def start(self) -> None:
        """Begin to work; no score is requested before."""

    def request(self, requests: Sequence[ScoreRequest]) -> None:
        """Ask for the scores of updates; `collect` returns them, now or later."""

    def collect(self) -> tuple[list[UpdateScore], list[LogEvent]]:
        """Return the scores since the last call, and events about errors.

        A score that cannot be computed is NaN: the update is not waited for.
        """
        return [], []

    def close(self) -> None:
        """End immediately. May be repeated."""


def no_score(request: ScoreRequest) -> UpdateScore:
    """Return the answer for an update whose score cannot be computed."""
    return UpdateScore(request.task_id, math.nan)
