"""Experiment a: asynchronous against synchronous rounds, to the same held-out loss.

The tuned settings were chosen by `a-tune` (its table is in docs/results).
"""

from __future__ import annotations

from typing import Any

from simulation.experiments.experiment import SCREENING, THREE, Experiment
from simulation.grid.grid import Case

UPDATES = 320
"""Most updates of a run: it ends there if it has not reached the target."""
TARGET = {"minilm": 0.48, "smollm2": 1.9}
"""Held-out loss in nats, chosen on the tuning half: well above the plateau, below half-way."""

STEADY = 0.55
"""Loss of MiniLM that the mean of three measurements must reach; added after the first runs,
because a single version of a noisy schedule (K = 1) may be at the target by luck."""


def asynchronous(name: str, buffer: int, updates: int = UPDATES, **settings: Any) -> Case:
    """Return a case in which a client gets a task as soon as there is room."""
    return Case(
        name,
        {
            "schedule.buffer_size": buffer,
            "phase.0.versions": updates // buffer,
            "simulation.measure_every": max(1, 5 // buffer),
            **_dotted(settings),
        },
    )


def synchronous(name: str, buffer: int = 10, updates: int = UPDATES, **settings: Any) -> Case:
    """Return a case with rounds of ten tasks, of which `buffer` updates make a version."""
    return Case(
        name,
        {
            "schedule.reissue": "commit",
            "schedule.buffer_size": buffer,
            "schedule.round_deadline_s": 100_000.0,
            "phase.0.versions": updates // buffer,
            **_dotted(settings),
        },
    )


def _dotted(settings: dict[str, Any]) -> dict[str, Any]:
    return {key.replace("__", "."): value for key, value in settings.items()}


def _with_target(cases: list[Case], target: float) -> list[Case]:
    common = {"simulation.target_loss": target, "aggregation.contribution_mode": "size"}
    return [Case(case.name, {**common, **case.settings}) for case in cases]


_QUESTION = (
    "With a fifth of the clients ten times slower, how much virtual time does each schedule take to"
    " the same held-out loss?"
)
_NOTE = (
    "20 clients, 10 tasks at a time, 5 local steps of batch 8; a step takes a second at the median"
    " speed, speeds are lognormal (σ = 0.5), 4 clients are ten times slower. All cases weight by"
    " size (FedAvg's weights), so that only the schedule differs. *wait for all* takes every client"
    " of a round of 10; *deadline* ends a round after some seconds if the quorum is reached;"
    " *over-selection* issues 10 tasks and takes the first few. Held-out loss is measured every 5"
    " or 10 updates and costs no virtual time."
)
TUNE = Experiment(
    key="a-tune",
    title="Tuning of the schedules",
    task="minilm",
    part="tune",
    outcome="time",
    question="Which deadline, over-selection and server learning rate are best for each schedule?",
    expected="Over-selection of 7 of 10 is the best synchronous schedule: it drops the 2 stragglers"
    " of a typical round.",
    baseline="sync, wait for all",
    seeds=SCREENING,
    cases=_with_target(
        [
            synchronous("sync, wait for all"),
            synchronous("sync, deadline 10 s", schedule__quorum=5, schedule__round_deadline_s=10.0),
            synchronous("sync, deadline 20 s", schedule__quorum=5, schedule__round_deadline_s=20.0),
            synchronous("sync, deadline 7 s", schedule__quorum=5, schedule__round_deadline_s=7.0),
            synchronous("sync, deadline 5 s", schedule__quorum=5, schedule__round_deadline_s=5.0),
            synchronous("sync, over-selection 7 of 10", 7),
            synchronous("sync, over-selection 5 of 10", 5),
            asynchronous("async, K = 5", 5),
            asynchronous("async, K = 3", 3),
            asynchronous("async, K = 2", 2),
            asynchronous("async, K = 1", 1),
            asynchronous("async, K = 1, η = 0.5", 1, aggregation__server_lr=0.5),
        ],
        TARGET["minilm"],
    ),
    note=_NOTE,
)
REPORT = Experiment(
    key="a",
    title="Asynchronous against synchronous: MiniLM",
    task="minilm",
    part="report",
    outcome="time",
    question=_QUESTION,
    expected="Waiting for all takes at least 3 times as long as FedBuff, because a round lasts as"
    " long as its slowest client. A quorum with a deadline, and over-selection, win back most of"
    " that, so against them the factor is smaller, perhaps 1.5 to 2: they throw away work that is"
    " nearly done, but their updates are never stale. FedAsync (K = 1) is noisier than K = 5.",
    baseline="sync, wait for all",
    steady_loss=STEADY,
    cases=_with_target(
        [
            synchronous("sync, wait for all"),
            synchronous("sync, deadline 10 s", schedule__quorum=5, schedule__round_deadline_s=10.0),
            synchronous("sync, over-selection 5 of 10", 5),
            asynchronous("async, K = 5", 5),
            asynchronous("async, K = 2", 2),
            asynchronous("async, K = 1", 1),
        ],
        TARGET["minilm"],
    ),
    note=_NOTE,
)
SMOLLM2_UPDATES = 60
SMOLLM2 = Experiment(
    key="a-smollm2",
    title="Asynchronous against synchronous: SmolLM2-135M",
    task="smollm2",
    part="report",
    outcome="time",
    question=_QUESTION,
    expected="The same order as with MiniLM; the factor over waiting for all is at least 3.",
    baseline="sync, wait for all",
    seeds=THREE,
    cases=_with_target(
        [
            synchronous("sync, wait for all", updates=SMOLLM2_UPDATES),
            synchronous("sync, over-selection 5 of 10", 5, SMOLLM2_UPDATES),
            asynchronous("async, K = 5", 5, SMOLLM2_UPDATES),
        ],
        TARGET["smollm2"],
    ),
    note="SmolLM2-135M-Instruct, LoRA r = 8 on its two uppermost layers, instruction tuning on"
    " machine-written instructions; 3 local steps of batch 4.",
)
EXPERIMENTS = (TUNE, REPORT, SMOLLM2)
