"""Experiments d, e, f and a-skew on quadratics: five seeds, in seconds of processor time each.

They answer questions about schedules and weights, not about language models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from simulation.experiments.experiment import FIVE, Experiment
from simulation.grid.grid import Case

_SIZE: Mapping[str, Any] = {"aggregation.contribution_mode": "size"}
_ROBUST = (
    "none",
    "cosine-filter",
    "trimmed-mean",
    "median",
    "krum",
    "multi-krum",
    "centered-clip",
)
_ATTACKS: Mapping[str, Mapping[str, Any]] = {
    "honest": {},
    **{
        name: {
            "simulation.faulty": 0.2,
            "simulation.faults": [name],
            "simulation.fault_scale": 3.0,
        }
        for name in ("sign-flip", "noise", "collude")
    },
}


def _experiment(
    key: str, title: str, question: str, expected: str, cases: Sequence[Case], note: str
) -> Experiment:
    return Experiment(
        key=key,
        title=title,
        task="analytic",
        part="report",
        outcome="loss",
        question=question,
        expected=expected,
        baseline=cases[0].name,
        cases=cases,
        seeds=FIVE,
        note=f"Quadratics of dimension 50, a different optimum for each of 20 clients; the loss is"
        f" F(x) − F(x*). {note}",
    )


def _staleness(name: str, concurrency: int) -> Case:
    settings = {
        **_SIZE,
        "schedule.buffer_size": 2,
        "schedule.concurrency": concurrency,
        "phase.0.versions": 150,
        "simulation.measure_every": 50,
        "aggregation.staleness": name,
    }
    return Case(f"{name}, {concurrency} tasks in flight", settings)


def _scale(scale: str, temperature: float) -> Case:
    settings = {
        "schedule.buffer_size": 5,
        "phase.0.versions": 60,
        "simulation.measure_every": 20,
        "simulation.size_sigma": 1.0,
        "aggregation.score_scale": scale,
        "aggregation.temperature": temperature,
    }
    return Case(f"{scale}, T = {temperature:g}", settings)


def _robust(rule: str, attack: str) -> Case:
    settings: dict[str, Any] = {
        "aggregation.contribution_mode": "uniform",
        "schedule.buffer_size": 10,
        "schedule.concurrency": 20,
        "phase.0.versions": 30,
        "simulation.measure_every": 10,
        **_ATTACKS[attack],
    }
    if rule != "none":
        settings["aggregation.robust.rule"] = rule
    return Case(f"{rule}, {attack}", settings)


def _schedule(name: str, **settings: Any) -> Case:
    common = {
        **_SIZE,
        "phase.0.versions": 1000,
        "simulation.max_s": 300.0,
        "simulation.measure_every": 5,
        "simulation.stragglers": 0.4,
        "schedule.concurrency": 20,
        "schedule.max_staleness": 1000,
    }
    return Case(name, {**common, **{k.replace("__", "."): v for k, v in settings.items()}})


_ROUNDS = {"schedule__reissue": "commit"}
EXPERIMENTS = (
    _experiment(
        "a-skew",
        "Slow clients that hold what the others do not",
        "What does each schedule make of the same 300 virtual seconds, when 8 of 20 clients are ten"
        " times slower, and each client has an optimum of its own?",
        "Over-selection and deadlines stay at the optimum of the fast clients. Waiting for all has"
        " no bias, but few versions. Asynchronous runs lie between: they hear the slow clients,"
        " late and discounted; without a discount, and with the cache of last updates, the bias is"
        " least.",
        [
            _schedule(
                "sync, wait for all",
                schedule__buffer_size=20,
                **_ROUNDS,
                schedule__round_deadline_s=100_000.0,
            ),
            _schedule(
                "sync, deadline 10 s, quorum 10",
                schedule__buffer_size=20,
                **_ROUNDS,
                schedule__quorum=10,
                schedule__round_deadline_s=10.0,
            ),
            _schedule(
                "sync, over-selection 10 of 20",
                schedule__buffer_size=10,
                **_ROUNDS,
                schedule__round_deadline_s=100_000.0,
            ),
            _schedule("async, K = 5", schedule__buffer_size=5),
            _schedule("async, K = 10", schedule__buffer_size=10),
            _schedule(
                "async, K = 10, no discount",
                schedule__buffer_size=10,
                aggregation__staleness="constant",
            ),
            Case(
                "async, K = 10, cache of last updates",
                {
                    **_schedule("", schedule__buffer_size=10).settings,
                    "aggregation.contribution_mode": "uniform",
                    "aggregation.cache_updates": True,
                },
            ),
        ],
        "All 20 clients work at a time.",
    ),
    _experiment(
        "d",
        "Staleness functions and concurrency",
        "Which staleness function is best, with updates that are about 2, 5 and 10 versions old?",
        "Without a discount the loss is worse at 20 tasks in flight and no different at 4. The"
        " polynomial is safe everywhere; hinge and exponential discount so much at 20 that progress"
        " slows.",
        [
            _staleness(name, concurrency)
            for concurrency in (4, 10, 20)
            for name in ("polynomial", "constant", "hinge", "exponential")
        ],
        "K = 2, 300 updates; staleness is on average the number of tasks in flight, over K.",
    ),
    _experiment(
        "e",
        "Scale and temperature of the scores",
        "Which scale and temperature of the softmax is best, with honest clients of other sizes?",
        "Raw scores n/ℓ of hundreds give winner takes all, which is worse than the log scale; raw"
        " with a large temperature and log at T = 1 are similar.",
        [
            _scale("log", 1.0),
            _scale("log", 0.5),
            _scale("log", 2.0),
            _scale("raw", 1.0),
            _scale("raw", 10.0),
            _scale("raw", 100.0),
        ],
        "Source train, mode combined; numbers of rows are lognormal (σ = 1).",
    ),
    _experiment(
        "f",
        "Robust rules under attack",
        "What does each robust rule keep when 20 % of the clients flip the sign of their updates,"
        " send noise, or collude, and what does it cost when all are honest?",
        "The norm clip alone bounds each attacker to about the weight of one honest client, so"
        " noise is harmless and sign flips with threefold norm cost some progress. Multi-Krum,"
        " trimmed mean and centred clipping stop all three attacks. Krum and median cost most with"
        " honest clients, because they use one update's worth of information from skewed clients.",
        [_robust(rule, attack) for attack in _ATTACKS for rule in _ROBUST],
        "K = 10, 20 tasks in flight, uniform weights. Attackers send three times the norm of an"
        " honest update; the norm clip (1.5 × the running median) is on in all cases.",
    ),
)
