"""Virtual clients: from settings by named random streams, or from a trace file."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.config.simulation import SimulationConfig
from common.errors import ConfigError
from simulation.population.population import make_population
from simulation.population.streams import Streams

NAMES = [f"client_{i}" for i in range(10)]


def config(**values: object) -> SimulationConfig:
    return SimulationConfig.model_validate(values)


def trace(tmp_path: Path, text: str, names: list[str] | None = None) -> str:
    """Return the error of a trace file."""
    path = tmp_path / "trace.csv"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        make_population(config(trace=str(path)), names or NAMES[:2], Streams(0))
    assert "\n" not in str(caught.value) and caught.value.remedy
    return caught.value.what.replace(str(path), "FILE")


def test_exactly_the_share_of_the_clients_is_slow_or_faulty() -> None:
    settings = config(stragglers=0.3, straggler_factor=4.0, faults=["scale"], faulty=0.2)
    clients = make_population(settings, NAMES, Streams(3))
    assert sorted(client.speed for client in clients) == [0.25] * 3 + [1.0] * 7
    assert sum(client.faulty for client in clients) == 2


def test_a_client_keeps_its_speed_when_others_are_added() -> None:
    few, many = (
        make_population(config(speed_sigma=1.0), NAMES[:count], Streams(5)) for count in (3, 10)
    )
    assert [c.speed for c in few] == [c.speed for c in many[:3]]
    assert len({c.speed for c in many}) == 10


def test_a_trace_overrides_settings(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(
        "client,speed,upload_mbps,off,gone_at\nclient_1,0.5,8,10-20 30-,\n\nclient_0,2,,,100\n"
    )
    settings = config(trace=str(path), upload_mbps=16.0, latency_s=0.5, cuts=[[5.0, 1.0]])
    first, second = make_population(settings, NAMES[:2], Streams(0))
    assert (first.speed, first.upload, first.gone_at) == (2.0, 2e6, 100.0)
    assert (second.speed, second.upload, second.latency_s) == (0.5, 1e6, 0.5)
    assert second.outages == ((10.0, 20.0), (30.0, float("inf")))
    assert first.cuts == second.cuts == ((5.0, 6.0),)


@pytest.mark.parametrize(
    ("lines", "what"),
    [
        ("client_0,-1\nclient_1,1", "FILE, line 2: speed '-1' is not a number above 0"),
        ("client_0,1\nclient_1,0", "FILE, line 3: speed '0' is not a number above 0"),
        ("client_0,1\nclient_9,1", "FILE, line 3: 'client_9' is no client of this run"),
        ("client_0,1\nclient_0,1", "FILE, line 3: client_0 has a line already"),
        ("client_0,1", "FILE has no line for client_1"),
        ("client_0,\nclient_1,1", "FILE, line 2: client_0 has no speed"),
        ("client_0,1,2\nclient_1,1", "FILE, line 2: 3 fields, but 2 columns"),
    ],
)
def test_a_wrong_trace_is_refused_with_its_line(tmp_path: Path, lines: str, what: str) -> None:
    assert trace(tmp_path, f"client,speed\n{lines}\n") == what


def test_a_trace_with_an_unknown_column_or_a_wrong_span_is_refused(tmp_path: Path) -> None:
    assert "'sped' is unknown" in trace(tmp_path, "client,sped\n")
    text = "client,speed,off\nclient_0,1,20-10\nclient_1,1,\n"
    assert "line 2: off has '20-10'" in trace(tmp_path, text)


def test_a_faulty_client_that_does_not_exist_is_refused() -> None:
    settings = config(faults=["scale"], faulty_clients=["client_77"])
    with pytest.raises(ConfigError, match="client_77"):
        make_population(settings, NAMES, Streams(0))
