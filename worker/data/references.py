"""Reference log-probabilities (log π_ref) of a client's preference pairs, kept beside its data.

A phase of preference optimisation compares with one version, the same in every task. The
log-probabilities that this version gives to a client's pairs are therefore constants of the phase,
computed once. The name of the file is a hash of all that they depend on, so that another worker of
this machine, or the next start of this one, finds it.

`worker/trainer.py` reads them before it trains a `dpo` task; the client's lock must be held.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from common.files import write_durable
from common.protocol.tensors import Tensors
from learning.objectives.dpo import TokenisedPair

_PREFIX = "reference."
_KEPT = 4  # of training and holdout pairs, of this phase and of one before it

Pairs = Sequence[TokenisedPair]
Nats = list[tuple[float, float]]


@dataclass(frozen=True)
class References:
    """Reference log-probabilities of one client."""

    folder: Path  # the client's private directory, which may not exist yet
    fetch: Callable[[], Tensors]  # returns θ of the reference version; called only if needed

    def log_probabilities(
        self, version: str, pairs: Pairs, compute: Callable[[Tensors], Nats]
    ) -> Nats:
        """Return log π_ref of the chosen and the rejected answer of each pair, in nats.

        `version` is the SHA-256 of the reference's broadcast frame, which fixes run, base and
        adapter. `compute` is called with θ of the reference unless a file has the values.
        """
        path = self.folder / f"{_PREFIX}{_key(version, pairs)}.safetensors"
        nats = _load(path)
        if nats is None or nats.shape != (len(pairs), 2):
            nats = np.array(compute(self.fetch()), dtype=np.float64).reshape(len(pairs), 2)
            self.folder.mkdir(parents=True, exist_ok=True)
            write_durable(path, save({"nats": nats}))
            _remove_old(self.folder)
        return [(float(chosen), float(rejected)) for chosen, rejected in nats]


def _load(path: Path) -> np.ndarray[Any, Any] | None:
    """Return the values in a file; None if it is missing, or torn by a crash."""
    try:
        return load_file(path)["nats"]
    except (FileNotFoundError, SafetensorError, KeyError):
        return None


def _key(version: str, pairs: Pairs) -> str:
    digest = hashlib.sha256(version.encode())
    for pair in pairs:
        digest.update(repr((pair.chosen, pair.rejected)).encode())  # tokens, and which are answers
    return digest.hexdigest()[:32]


def _remove_old(folder: Path) -> None:
    files = sorted(folder.glob(f"{_PREFIX}*"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in files[_KEPT:]:
        path.unlink(missing_ok=True)
