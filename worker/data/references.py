"""Reference log-probabilities (log π_ref) of a client's answers, kept beside its data.

A phase of preference optimisation compares with one version, the same in every task. What this
version gives to an answer is therefore a constant of the phase. A task asks for the answers that it
uses; those that no task has used before are computed, and added to the phase's file. Another worker
of this machine, or the next start of this one, finds them there. An answer is known by its tokens,
so that pairs, single ratings and answers of other prompts can share a file.

`worker/trainer.py` reads them before it trains a `dpo` or `kto` task; the client's lock must be
held.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from common.disk_errors import disk_errors, is_refusal
from common.files import make_private, write_durable
from common.protocol.tensors import Tensors
from learning.objectives.tokens import TokenisedExample
from worker.events import GOES_ON

_PREFIX = "reference."
_KEPT = 4  # files: of this phase and of some before it
_KEY_BYTES = 16

Answers = Sequence[TokenisedExample]
"""Answers with their prompts."""
ComputeNats = Callable[[Tensors, Answers], Sequence[float]]
"""(θ of the reference, answers) → log π_ref of each, in nats."""


@dataclass(frozen=True)
class References:
    """Reference log-probabilities of one client."""

    folder: Path  # the client's private directory, which may not exist yet
    fetch: Callable[[], Tensors]  # returns θ of the reference version; called only if needed

    def log_probabilities(
        self, version: str, answers: Answers, compute: ComputeNats
    ) -> list[float]:
        """Return log π_ref of each answer, summed over its tokens, in nats.

        Args:
            version: Text that fixes the model π_ref: the SHA-256 of the reference's broadcast
                frame, which fixes run, base and adapter, and whatever else changes the values.
            answers: Any answers of the client; equal ones are computed once.
            compute: Called with θ of the reference and the answers that no file has, if any.
        """
        path = self.folder / f"{_PREFIX}{_hash(version).hex()}.safetensors"
        known = _load(path)
        keys = [_hash(repr((answer.input_ids, answer.labels))) for answer in answers]
        missing = {k: a for k, a in zip(keys, answers, strict=True) if k not in known}
        if missing:
            values = compute(self.fetch(), list(missing.values()))
            known |= dict(zip(missing, map(float, values), strict=True))
            with disk_errors(path, GOES_ON):
                make_private(self.folder)
                write_durable(path, _dump(known))
                _remove_old(self.folder)
        return [known[key] for key in keys]


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()[:_KEY_BYTES]


def _dump(known: dict[bytes, float]) -> bytes:
    keys = np.frombuffer(b"".join(known), np.uint8).reshape(-1, _KEY_BYTES)
    return save({"keys": keys, "nats": np.array(list(known.values()), np.float64)})


def _load(path: Path) -> dict[bytes, float]:
    """Return the values in a file by key; none if it is missing, or torn by a crash."""
    try:
        found = load_file(path)
        keys, nats = found["keys"], found["nats"]
    except (FileNotFoundError, SafetensorError, KeyError) as error:
        if is_refusal(error):
            raise
        return {}
    if keys.shape != (len(nats), _KEY_BYTES):
        return {}
    return {key.tobytes(): float(value) for key, value in zip(keys, nats, strict=True)}


def _remove_old(folder: Path) -> None:
    files = sorted(folder.glob(f"{_PREFIX}*"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in files[_KEPT:]:
        path.unlink(missing_ok=True)
