"""Digests of versions, by which the journal says what the files of a version have to hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from common.protocol.adapter_form import AdapterForm, frozen_part
from common.protocol.adapter_frame import adapter_ref
from common.protocol.fields import CodecName
from common.protocol.tasks import BlobRef
from common.protocol.tensors import Array


@dataclass(frozen=True)
class VersionDigests:
    """How the frames of a run's versions are made.

    Attributes:
        codec: Of adapters.
        frozen: Frame of the tensors that are not in the frames of versions (rule `ffa`), if any.
        schema1: Whether the run began with schema 1.
    """

    codec: CodecName
    frozen: BlobRef | None = None
    schema1: bool = False

    def digest(self, version: int, tensors: Mapping[str, Array]) -> str:
        """Return the digest of the frame of a version's tensors."""
        sent = AdapterForm(frozen=self.frozen is not None).of(tensors)
        return adapter_ref(version, self.codec, sent, schema1=self.schema1).sha256

    def are_right(self, version: int, tensors: Mapping[str, Array], expected: str) -> bool:
        """Return whether tensors are those of a version whose frame has the expected digest."""
        if self.digest(version, tensors) != expected:
            return False
        return self.frozen is None or self.frozen == adapter_ref(
            0, self.codec, frozen_part(tensors)
        )
