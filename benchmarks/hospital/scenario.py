"""The scenario: seven sites, a network cut, a site that is lost, and one scale for all times."""

from __future__ import annotations

from dataclasses import dataclass

BATCH = 16


@dataclass(frozen=True)
class Site:
    """A hospital: its data, and how fast its machine trains.

    Attributes:
        steps: Local steps of a task: one pass over its training rows, `BATCH` rows at a time.
        step_s: Seconds of a step, before they are scaled.
        positive: Share of its training rows with the label 1.
    """

    name: str
    steps: int
    step_s: float
    positive: float

    @property
    def training_rows(self) -> int:
        return self.steps * BATCH


@dataclass(frozen=True)
class Scenario:
    """What happens to the sites, in seconds since the sites began; `scale` divides all times."""

    sites: tuple[Site, ...]
    scale: float
    cut_at_s: float
    cut_s: float
    lost: str
    lost_at_s: float
    end_s: float

    def scaled(self, seconds: float) -> float:
        """Return how long something of the scenario takes here."""
        return seconds / self.scale

    @property
    def slowest_task_s(self) -> float:
        return max(site.steps * site.step_s for site in self.sites)


FULL = Scenario(
    sites=(
        Site("university", steps=40, step_s=3.0, positive=0.5),
        Site("city", steps=20, step_s=12.0, positive=0.6),
        Site("county", steps=12, step_s=6.0, positive=0.4),
        Site("district", steps=8, step_s=4.0, positive=0.5),
        Site("rural", steps=6, step_s=40.0, positive=0.4),
        Site("practice", steps=4, step_s=10.0, positive=0.6),
        Site("clinic", steps=2, step_s=15.0, positive=0.5),
    ),
    scale=3.0,
    cut_at_s=7 * 60.0,
    cut_s=6 * 60.0,
    lost="county",
    lost_at_s=17 * 60.0,
    end_s=27 * 60.0,
)
