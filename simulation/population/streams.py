"""Named streams of random numbers: what one client draws depends on no other client's events."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Streams:
    """Random streams of one seed."""

    seed: int

    def of(self, name: str, *keys: int) -> np.random.Generator:
        """Return a new generator for a purpose and, for instance, a client and its n-th task."""
        words = (zlib.crc32(name.encode()), *keys)
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=words))
