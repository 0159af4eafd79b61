"""Settings of a site that trade speed for memory."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class MemorySettings:
    """How a worker fits the batches of a task into its memory; the result is the same.

    Attributes:
        micro_batch: Examples that go through the model at once; gradients are accumulated over a
            batch. None begins with the whole batch, and halves it when memory runs out.
        checkpointing: Whether activations are computed a second time instead of being kept. None
            does so only if memory runs out with one example at a time.
    """

    micro_batch: int | None = None
    checkpointing: bool | None = None


AUTOMATIC = MemorySettings()
