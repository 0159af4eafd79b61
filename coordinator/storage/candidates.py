"""Candidates: adapters of one version with one update applied, θ + cΔ, which clients score.

They are made from the run directory whenever they are needed, always the same bytes, so that a
coordinator that restarts can publish again what its evaluations name.
"""

from __future__ import annotations

from common.protocol import codec
from common.protocol.layout import TensorLayout
from common.protocol.tasks import BlobRef
from coordinator.aggregation.forms import AdapterForms
from coordinator.aggregation.rules.factor import aggregate_factors
from coordinator.core.state import BufferedUpdate, CoordinatorState
from coordinator.storage.spool import Spool
from coordinator.storage.versions import Versions


def candidates_in_use(state: CoordinatorState) -> dict[str, BufferedUpdate]:
    """Return the buffered updates that open evaluations score, by the id of their task."""
    named = {evaluation.candidate for evaluation in state.evaluations.values()}
    return {update.task_id: update for update in state.buffer if update.task_id in named}


class Candidates:
    """Candidates of one run; the frame that was made last stays in memory."""

    def __init__(self, versions: Versions, spool: Spool, forms: AdapterForms | None = None) -> None:
        self._versions, self._spool = versions, spool
        self._forms = forms or AdapterForms()
        self._last: tuple[str, bytes] = ("", b"")

    def frame(self, update: BufferedUpdate) -> bytes:
        """Return the frame of a candidate.

        Raises:
            RunError: The update or its base version cannot be read.
        """
        if self._last[0] != update.task_id:
            form = self._forms.of(update.client_id)
            start = form.of(self._versions.read(update.base_version))
            delta = self._spool.delta(update.upload, TensorLayout.of(start))
            tensors = aggregate_factors(start, [(update.clip, delta)])
            frame = self._versions.frame_of(update.base_version, tensors)
            self._last = (update.task_id, frame)
        return self._last[1]

    def ref(self, update: BufferedUpdate) -> BlobRef:
        """Return the reference of a candidate's frame."""
        frame = self.frame(update)
        return BlobRef(sha256=codec.digest(frame), nbytes=len(frame))
