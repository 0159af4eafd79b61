"""Plan of a chaotic federation, drawn from a seed: its configuration and its faults."""

from __future__ import annotations

import json
import random
from collections.abc import Collection
from dataclasses import dataclass, field

from common.config.config import RunConfig

KINDS: dict[str, int] = {
    "coordinator killed": 9,
    "coordinator frozen": 4,
    "coordinator terminated": 2,
    "coordinator replaced while frozen": 5,
    "two coordinators at once": 3,
    "worker killed": 8,
    "worker frozen": 5,
    "worker terminated": 2,
    "RabbitMQ killed": 4,
    "RabbitMQ frozen": 3,
    "RabbitMQ restarted": 2,
    "Redis killed": 3,
    "Redis frozen": 3,
    "Redis restarted": 2,
    "Redis emptied": 5,
    "updates repeated": 8,
    "network slow": 5,
    "network lossy": 4,
    "network cut": 6,
    "network blackhole": 4,
    "coordinator's disk full": 4,
    "worker's disk full": 4,
    "coordinator's clock moved": 4,
    "worker's clock moved": 3,
}
"""Kinds of faults, with their weights."""


@dataclass(frozen=True)
class Fault:
    """One fault of a schedule."""

    kind: str
    at_s: float  # since version 0 is there, without the time that the schedule was held up
    seconds: float  # how long it lasts
    delay_s: float  # of a supervisor that restarts what ended
    choice: float  # in [0, 1): which of several targets
    seed: int
    solitary: bool  # no other fault begins before the federation has recovered, within limits


@dataclass(frozen=True)
class ChaosPlan:
    """Configuration of a federation, and its faults in the order of their start."""

    seed: int
    name: str
    workers: int
    config: dict[str, dict[str, object]]
    phases: list[dict[str, object]] = field(default_factory=list)
    faults: tuple[Fault, ...] = ()

    @property
    def toml(self) -> str:
        tables = [("[[phase]]", phase) for phase in self.phases]
        tables += [(f"[{name}]", table) for name, table in self.config.items()]
        return "\n".join(_table(head, table) for head, table in tables)

    @property
    def total_versions(self) -> int:
        return sum(int(str(phase["versions"])) for phase in self.phases)


def draw(seed: int, faults: int, kinds: Collection[str] = ()) -> ChaosPlan:
    """Draw the plan of a seed.

    Args:
        seed: Determines everything.
        faults: Number of faults.
        kinds: Kinds to draw from; all if there are none.
    """
    source = random.Random(f"federation {seed}")
    workers = source.choice((2, 2, 3))
    clients = workers + source.choice((0, 1, 2))
    schedule = _draw_schedule(source, workers, clients)
    buffer = schedule["buffer_size"]
    versions = max(6, round(faults * source.uniform(6.0, 9.0) / int(str(buffer))))
    name = f"chaos-{seed}"
    config: dict[str, dict[str, object]] = {
        "run": {"name": name, "seed": seed, "keep_versions": source.choice((3, 10, 100))},
        "broker": {"queue_type": source.choice(("classic", "classic", "classic", "quorum"))},
        "model": {"name": "offline:gpt2-micro", "max_length": 256},
        "model.lora": {"r": source.choice((4, 8)), "alpha": 8},
        "data": {"rows": 150, "clients": clients, "alpha": 5.0},
        "schedule": schedule,
        "codec": {
            "update": source.choice(("fp32", "bf16", "int8", "int8", "int4", "topk")),
            "adapter": source.choice(("fp32", "bf16")),
        },
        "aggregation": _draw_aggregation(source, int(str(buffer))),
    }
    if source.random() < 0.4:
        evaluation: dict[str, object] = {
            "federated": True,
            "every": 5,
            "max_rows": 8,
            "deadline_s": 30.0,
        }
        config["evaluation"] = evaluation
    if "keep_updates" in RunConfig.model_fields:
        config["run"]["keep_updates"] = True
    phases = _draw_phases(source, versions)
    return ChaosPlan(seed, name, workers, config, phases, draw_faults(seed, faults, kinds))


def draw_faults(seed: int, count: int, kinds: Collection[str] = ()) -> tuple[Fault, ...]:
    source = random.Random(f"faults {seed}")
    names = [kind for kind in KINDS if not kinds or kind in kinds]
    drawn: list[Fault] = []
    at = 0.0
    for _ in range(count):
        at += source.uniform(0.5, 2.0) if source.random() < 0.25 else source.uniform(3.0, 6.0)
        drawn.append(
            Fault(
                kind=source.choices(names, [KINDS[name] for name in names])[0],
                at_s=round(at, 2),
                seconds=round(source.choice((0.5, 2.0, 5.0, 9.0)) * source.uniform(0.6, 1.4), 2),
                delay_s=round(source.uniform(0.0, 1.0), 2),
                choice=source.random(),
                seed=source.randrange(1 << 30),
                solitary=source.random() < 0.3,
            )
        )
    return tuple(drawn)


def _draw_schedule(source: random.Random, workers: int, clients: int) -> dict[str, object]:
    schedule: dict[str, object] = {
        "concurrency": clients,
        "lease_s": source.choice((6.0, 8.0, 12.0)),
        "flush_s": source.choice((8.0, 60.0)),
        "task_deadline_s": 60.0,
        "max_staleness": source.choice((3, 20)),
    }
    if source.random() < 0.3:
        schedule |= {"reissue": "commit", "buffer_size": clients, "round_deadline_s": 20.0}
        if source.random() < 0.5:
            schedule["quorum"] = max(1, clients - 1)
    else:
        schedule |= {"reissue": "immediate", "buffer_size": source.choice((1, 2, 2, 3))}
    return schedule


def _draw_aggregation(source: random.Random, buffer: int) -> dict[str, object]:
    aggregation: dict[str, object] = {
        "contribution_mode": source.choice(("loss", "size", "combined")),
        "staleness_exponent": source.choice((0.0, 0.5, 1.0)),
        "over_norm": source.choice(("clip", "clip", "reject")),
    }
    if buffer > 1 and source.random() < 0.3:
        aggregation |= {"contribution_mode": "loss", "contribution_source": "cosine"}
    return aggregation


def _draw_phases(source: random.Random, versions: int) -> list[dict[str, object]]:
    objectives = source.choice((("sft",), ("sft",), ("sft", "dpo"), ("sft", "kto")))
    first = versions if len(objectives) == 1 else versions // 2
    lengths = (first, versions - first)
    return [
        {
            "objective": objective,
            "versions": length,
            "local_steps": source.choice((1, 2, 4)),
            "batch_size": 4,
        }
        for objective, length in zip(objectives, lengths, strict=False)
    ]


def _table(head: str, table: dict[str, object]) -> str:
    lines = [f"{key} = {json.dumps(value)}" for key, value in table.items()]
    return "\n".join([head, *lines, ""])
