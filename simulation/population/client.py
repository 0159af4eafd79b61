"""Properties of one virtual client, which never change during a run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from simulation.population.availability import Interval, random_outages, until_gone
from simulation.population.streams import Streams

MEGABIT = 1e6 / 8


@dataclass(frozen=True)
class VirtualClient:
    """One client, with a machine and a network of its own.

    Attributes:
        name: The client's id, which is also the name of its site.
        index: Its place in the plan; names its random streams.
        speed: Local steps per `simulation.step_s`.
        latency_s: Of every message, in either direction.
        upload, download: Bytes per second; 0 for no limit.
        dropout: Probability that the answer to a task is lost.
        availability, available_s: Share of the time for which the machine is on, and mean length
            of a time for which it is on; used without `outages`.
        outages: Times at which the machine is off, if they are given.
        cuts: Times at which its network is cut, in order and without overlaps.
        gone_at: Time at which it is gone for good.
        faulty: Whether it does what `simulation.faults` says.
    """

    name: str
    index: int
    speed: float = 1.0
    latency_s: float = 0.0
    upload: float = 0.0
    download: float = 0.0
    dropout: float = 0.0
    availability: float = 1.0
    available_s: float = 3600.0
    outages: tuple[Interval, ...] | None = None
    cuts: tuple[Interval, ...] = ()
    gone_at: float = float("inf")
    faulty: bool = False

    def each_outage(self, streams: Streams, until: float) -> Iterator[Interval]:
        """Yield the times at which its machine is off, in order."""
        if self.outages is not None:
            return until_gone(self.outages, self.gone_at)
        if self.availability >= 1:
            return until_gone((), self.gone_at)
        rng = streams.of("availability", self.index)
        drawn = random_outages(self.availability, self.available_s, rng, until)
        return until_gone(drawn, self.gone_at)

    def download_s(self, nbytes: int) -> float:
        """Return the time in which it receives a message of a size."""
        return self.latency_s + (nbytes / self.download if self.download else 0.0)

    def upload_s(self, nbytes: int) -> float:
        """Return the time in which it sends a message of a size."""
        return self.latency_s + (nbytes / self.upload if self.upload else 0.0)
