"""Local steps by measured speed, so that clients of very different speed answer at the same time.

The idea is that of FedCompass (Li et al., 2024): a coordinator that knows how long a client takes
per step can choose the number of its steps, within limits. There, clients are put into groups that
arrive together. Here all clients have one target, and no client waits for another one:

    o_i + q_i s_i ≈ T,  T = median over clients j of o_j + q s_j

with s_i the seconds per step, o_i all other time between issue and arrival (transfers, queues,
loading of the model), and q the `local_steps` of the phase. So the client of median speed makes q
steps, q_i = round((T − o_i) / s_i), cut to the limits. A client that was not measured yet in this
phase makes q steps.

A client's measures are the medians of its last `PACES` updates, those that came too late included:
one that waited for a broken network does not slow it down for long. A client can lie about its
seconds of training, and thereby choose its own steps within the limits, and no more: the time from
issue to arrival is the coordinator's, and an update counts with the steps that its task was given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

PACES = 3  # updates of a client, the medians of which count


@dataclass(frozen=True)
class Pace:
    """What one update of a client took."""

    step_s: float  # seconds per local step
    overhead_s: float  # all other seconds between issue and arrival

    def seconds(self, steps: int) -> float:
        """Return the time from issue to arrival of a task with so many steps."""
        return self.overhead_s + steps * self.step_s


def measure(training_s: float, steps: int, elapsed_s: float) -> Pace:
    """Return the pace of an update that arrived so many seconds after its issue."""
    elapsed_s = max(0.0, elapsed_s)  # the clock may have been set back
    training_s = min(training_s, elapsed_s)
    return Pace(training_s / steps, elapsed_s - training_s)


def typical(paces: Sequence[Pace]) -> Pace | None:
    """Return the median step and the median overhead; None if nothing was measured."""
    if not paces:
        return None
    return Pace(median(p.step_s for p in paces), median(p.overhead_s for p in paces))


def assigned_steps(
    pace: Pace | None, target_s: float | None, usual: int, limits: tuple[int, int]
) -> int:
    """Return the number of local steps of a client's next task.

    Args:
        pace: The client's typical pace, if it was measured.
        target_s: T; None if no client was measured.
        usual: `local_steps` of the phase.
        limits: The smallest and the largest number of steps.
    """
    if pace is None or target_s is None:
        return usual
    least, most = limits
    remaining_s = target_s - pace.overhead_s
    if remaining_s >= most * pace.step_s:  # also if a step takes no time
        return most
    return max(least, round(remaining_s / pace.step_s))
