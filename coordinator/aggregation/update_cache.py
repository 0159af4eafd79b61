"""Cache of last updates: clients that answer seldom keep their voice in every version.

    v = mean(h) + Σᵢ wᵢ (Δᵢ − hᵢ)   over the buffer, all clients alike; afterwards hᵢ ← Δᵢ

hⱼ is the update of client j that was applied last, and mean(h) that of all clients that have one.
So the step estimates the mean over all clients, whoever happens to be in the buffer. As a sum over
buffer and cache, with Wⱼ the weight of client j in the buffer, W that of clients without hⱼ, and N
cached updates:

    v = Σᵢ wᵢ Δᵢ + Σⱼ ((1 − W) / N − Wⱼ) hⱼ

A client without hᵢ counts as the mean. With the paper's 0 the steps of the first sweep would grow
to twice their length, because a schedule that takes clients in turn has no client twice in it.

Nothing is discounted by staleness, which is what the cache is for. A cached update counts for as
many versions as a stale one is accepted (`schedule.max_staleness`), so that a client that is gone
for good is forgotten; and no longer than its phase, because another objective has other deltas.

Source: Wang et al., "Tackling the Data Heterogeneity in Asynchronous Federated Learning with Cached
Update Calibration" (CA2FL, ICLR 2024), algorithm 1.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar


class AppliedUpdate(Protocol):
    """An update that a version has applied."""

    @property
    def task_id(self) -> str: ...
    @property
    def client_id(self) -> str: ...
    @property
    def clip(self) -> float: ...


U = TypeVar("U", bound=AppliedUpdate)


@dataclass(frozen=True)
class _Entry(Generic[U]):
    update: U
    version: int
    phase: int


class UpdateCache(Generic[U]):
    """The newest applied update of each client, in the order in which they were applied."""

    def __init__(self, max_age: int) -> None:
        self._max_age = max_age
        self._entries: dict[str, _Entry[U]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def before(self, version: int, phase: int) -> list[U]:
        """Return what counts in the step that makes a version; forget the rest."""
        self._entries = {
            client: entry
            for client, entry in self._entries.items()
            if entry.phase == phase and version - 1 - entry.version <= self._max_age
        }
        return [entry.update for entry in self._entries.values()]

    def apply(self, version: int, phase: int, updates: Iterable[U]) -> None:
        """Remember the updates of a version, in the order in which they were accepted."""
        for update in updates:
            self._entries.pop(update.client_id, None)
            self._entries[update.client_id] = _Entry(update, version, phase)


def cached_coefficients(
    weights: Sequence[tuple[str, float]], cached: Sequence[AppliedUpdate], rate: float
) -> list[float]:
    """Return the factor of each cached delta in the step.

    Args:
        weights: Client and weight wᵢ of each update of the buffer; the weights add up to 1.
        cached: The cached updates, whose norm clip counts again.
        rate: η, or 1 where a server optimizer has it.
    """
    own = defaultdict[str, float](float)
    for client, weight in weights:
        own[client] += weight
    known = {update.client_id for update in cached}
    new = sum(weight for client, weight in own.items() if client not in known)
    return [
        rate * update.clip * ((1 - new) / len(cached) - own[update.client_id]) for update in cached
    ]
