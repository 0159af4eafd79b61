"""All virtual clients of a run, made from [simulation] and, where one is named, a trace file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np

from common.config.simulation import SimulationConfig
from common.errors import ConfigError
from simulation.population.availability import Interval, merge
from simulation.population.client import MEGABIT, VirtualClient
from simulation.population.streams import Streams
from simulation.population.trace import Row, read_trace


def make_population(
    config: SimulationConfig, names: Sequence[str], streams: Streams
) -> tuple[VirtualClient, ...]:
    """Return the clients in the order of their names.

    Raises:
        ConfigError: The trace file is wrong, or a faulty client is no client of the run.
    """
    faulty = _faulty(config, names, streams)
    cuts = merge((start, start + length) for start, length in config.cuts)
    trace = read_trace(Path(config.trace).expanduser(), names) if config.trace else {}
    speeds = _speeds(config, len(names), streams)
    return tuple(
        _client(config, name, index, speeds[index], cuts, name in faulty, trace.get(name, {}))
        for index, name in enumerate(names)
    )


def _client(
    config: SimulationConfig,
    name: str,
    index: int,
    speed: float,
    cuts: tuple[Interval, ...],
    faulty: bool,
    row: Row,
) -> VirtualClient:
    usual = VirtualClient(
        name=name,
        index=index,
        speed=speed,
        latency_s=config.latency_s,
        upload=config.upload_mbps * MEGABIT,
        download=config.download_mbps * MEGABIT,
        dropout=config.dropout,
        availability=config.availability,
        available_s=config.available_s,
        cuts=cuts,
        faulty=faulty,
    )
    return _traced(usual, row) if row else usual


def _traced(client: VirtualClient, row: Row) -> VirtualClient:
    """Return a client with the values of its line in the trace file."""

    def number(key: str, default: float) -> float:
        return cast(float, row.get(key, default))

    def spans(key: str) -> tuple[Interval, ...]:
        return cast("tuple[Interval, ...]", row.get(key, ()))

    return replace(
        client,
        speed=number("speed", client.speed),
        latency_s=number("latency_s", client.latency_s),
        upload=number("upload_mbps", client.upload / MEGABIT) * MEGABIT,
        download=number("download_mbps", client.download / MEGABIT) * MEGABIT,
        dropout=number("dropout", client.dropout),
        outages=spans("off") if "off" in row else None,
        cuts=merge((*client.cuts, *spans("cuts"))),
        gone_at=number("gone_at", client.gone_at),
    )


def _speeds(config: SimulationConfig, count: int, streams: Streams) -> list[float]:
    """Return lognormal speeds with median 1, those of the stragglers divided by their factor.

    The first draws of a stream do not depend on their number: a client keeps its speed when others
    are added.
    """
    drawn = np.exp(config.speed_sigma * streams.of("speed").standard_normal(count))
    for index in chosen(config.stragglers, count, streams.of("stragglers")):
        drawn[index] /= config.straggler_factor
    return [float(speed) for speed in drawn]


def _faulty(config: SimulationConfig, names: Sequence[str], streams: Streams) -> set[str]:
    unknown = [name for name in config.faulty_clients if name not in set(names)]
    if unknown:
        raise ConfigError(
            f"simulation.faulty_clients names {unknown[0]}, which is no client of this run",
            "correct it",
        )
    drawn = chosen(config.faulty, len(names), streams.of("faulty"))
    return {*config.faulty_clients, *(names[index] for index in drawn)}


def chosen(share: float, count: int, rng: np.random.Generator) -> set[int]:
    """Return a random choice of a share of the clients: exactly that many, rounded."""
    number = round(share * count)
    return {int(index) for index in rng.permutation(count)[:number]} if number else set()
