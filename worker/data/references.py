"""log π_ref of a client's preference pairs: computed once, kept beside its data.

A phase of preference optimisation compares with one version, the same in every task, so what that
version says of a client's pairs is a constant of the phase. The file is named by all that it
depends on; another worker of this machine, or the next start of this one, finds it.

In the data path: `worker/trainer` asks before it trains a `dpo` task; the client's lock is held.
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
    """What a client's pairs are compared with.

    Attributes:
        folder: The client's private directory, which may not exist yet.
        fetch: θ of the reference version; called only if something is not known yet.
    """

    folder: Path
    fetch: Callable[[], Tensors]

    def of(self, version: str, pairs: Pairs, compute: Callable[[Tensors], Nats]) -> Nats:
        """Log π_ref of chosen and rejected of each pair, in nats.

        Args:
            version: SHA-256 of the reference's broadcast frame, which fixes run, base and adapter.
            pairs: The pairs.
            compute: From θ of the reference, if they have not been computed before.
        """
        path = self.folder / f"{_PREFIX}{_key(version, pairs)}.safetensors"
        found = _load(path)
        if found is None or found.shape != (len(pairs), 2):
            found = np.array(compute(self.fetch()), dtype=np.float64).reshape(len(pairs), 2)
            self.folder.mkdir(parents=True, exist_ok=True)
            write_durable(path, save({"nats": found}))
            _forget(self.folder)
        return [(float(chosen), float(rejected)) for chosen, rejected in found]


def _load(path: Path) -> np.ndarray[Any, Any] | None:
    """What was computed before; None if nothing was, or a crash has torn it."""
    try:
        return load_file(path)["nats"]
    except (FileNotFoundError, SafetensorError, KeyError):
        return None


def _key(version: str, pairs: Pairs) -> str:
    digest = hashlib.sha256(version.encode())
    for pair in pairs:
        digest.update(repr((pair.chosen, pair.rejected)).encode())  # tokens, and which are answers
    return digest.hexdigest()[:32]


def _forget(folder: Path) -> None:
    """Remove all but the newest files."""
    files = sorted(folder.glob(f"{_PREFIX}*"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in files[_KEPT:]:
        path.unlink(missing_ok=True)
