"""Adapters that tasks name, as a worker fetches them from the store."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from common.errors import RunError
from common.protocol.adapter_form import AdapterForm, frozen_part
from common.protocol.adapter_frame import unpack_adapter
from common.protocol.tasks import BlobRef
from common.protocol.tensors import Tensors
from coordinator.core.state import CoordinatorState
from coordinator.storage.candidates import Candidates, candidates_in_use
from coordinator.storage.journal import Journal
from coordinator.storage.versions import Versions

_KEPT = 8


class Adapters:
    """Versions and candidates of one run by their digests; the last few stay in memory."""

    def __init__(
        self,
        journal: Journal,
        versions: Versions,
        candidates: Candidates,
        state: Callable[[], CoordinatorState],
    ) -> None:
        self._journal, self._versions = journal, versions
        self._candidates, self._state = candidates, state
        self._numbers: dict[str, tuple[int, int | None]] = {}
        self._newest = -1
        self._tensors: OrderedDict[str, Tensors] = OrderedDict()

    def fetch(self, blob: BlobRef) -> Tensors:
        """Return the tensors of a version or a candidate, which nobody may change.

        Raises:
            RunError: There is none with this digest.
        """
        if blob.sha256 not in self._tensors:
            self._tensors[blob.sha256] = self._read(blob)
        self._tensors.move_to_end(blob.sha256)
        while len(self._tensors) > _KEPT:
            self._tensors.popitem(last=False)
        return self._tensors[blob.sha256]

    def _read(self, blob: BlobRef) -> Tensors:
        found = self._find(blob.sha256)
        if found is not None:
            number, rank = found
            return AdapterForm(rank=rank).of(self._versions.read(number))
        for update in candidates_in_use(self._state()).values():
            if self._candidates.ref(update) == blob:
                sent = unpack_adapter(self._candidates.frame(update))[1]
                # Factors that are frozen do not travel; all versions have the same.
                return frozen_part(self._versions.read(0)) | sent
        raise RunError(f"no version has the digest {blob.sha256[:12]}", "report this")

    def _find(self, sha256: str) -> tuple[int, int | None] | None:
        """Return the newest version with a digest, and the rank of that frame if it has its own.

        A step without effect repeats the last version.
        """
        if sha256 not in self._numbers:
            for summary in self._journal.each_version(after=self._newest):
                self._numbers[summary.sha256] = summary.version, None
                for lower in summary.ranked:
                    self._numbers[lower.sha256] = summary.version, lower.rank
                self._newest = summary.version
        return self._numbers.get(sha256)
