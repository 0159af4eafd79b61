"""Settings of a site that trade speed for memory, and what its tasks turned out to need."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class MemorySettings:
    """How a worker fits the batches of a task into its memory; the result is the same.

    Attributes:
        micro_batch: Examples that go through the model at once; gradients are accumulated over a
            batch. None begins with the whole batch. Either is halved when memory runs out.
        checkpointing: Whether activations are computed a second time instead of being kept. None
            does so only if memory runs out with one example at a time.
    """

    micro_batch: int | None = None
    checkpointing: bool | None = None


AUTOMATIC = MemorySettings()


class FittedMemory:
    """Settings that tasks of a kind ended with, so that the next one need not run out of memory.

    They are kept as long as the process lives: another program that took the memory may be gone at
    its next start.
    """

    def __init__(self, settings: MemorySettings = AUTOMATIC) -> None:
        self._settings = settings
        self._fitted: dict[Hashable, MemorySettings] = {}

    def get(self, kind: Hashable) -> MemorySettings:
        """Return the settings to begin a task with; `kind` is what its memory depends on."""
        return self._fitted.get(kind, self._settings)

    def remember(self, kind: Hashable, settings: MemorySettings) -> None:
        self._fitted[kind] = settings


def after_crashes(
    settings: MemorySettings, crashes: int, batch_size: int, *, can_checkpoint: bool
) -> MemorySettings:
    """Return settings for a task in which this process was killed before, so many times.

    Where the system kills a process for lack of memory, no error tells it to use less. The second
    start takes a quarter of a batch at a time, and a later one does with as little as possible.
    """
    size = min(settings.micro_batch or batch_size, batch_size)
    if not crashes:
        return settings
    if crashes == 1:
        return replace(settings, micro_batch=max(1, size // 4))
    spare = can_checkpoint if settings.checkpointing is None else settings.checkpointing
    return MemorySettings(micro_batch=1, checkpointing=spare)
