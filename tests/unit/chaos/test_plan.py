"""A seed of a chaotic federation says everything about it, and the table counts its faults."""

from __future__ import annotations

from pathlib import Path

from common.config import loader
from common.config.effect import check_effect
from tests.chaos.faults import INJECTIONS
from tests.chaos.plan import KINDS, draw
from tests.chaos.table import FaultRecord, FederationRecord, append, read, summarise


def test_a_seed_determines_configuration_and_faults() -> None:
    assert draw(3, 20) == draw(3, 20)
    assert draw(3, 20).faults != draw(4, 20).faults


def test_fewer_faults_of_a_seed_are_the_first_of_more() -> None:
    assert draw(3, 20).faults[:5] == draw(3, 5).faults


def test_the_configurations_of_seeds_are_valid(tmp_path: Path) -> None:
    for seed in range(20):
        path = tmp_path / f"{seed}.toml"
        path.write_text(draw(seed, 20).toml)
        check_effect(loader.load(path))


def test_every_kind_of_fault_can_be_injected() -> None:
    assert INJECTIONS.keys() == KINDS.keys()


def test_the_table_has_median_and_maximum_of_each_kind_of_fault(tmp_path: Path) -> None:
    path = tmp_path / "faults.jsonl"
    times = [(1.0, True), (2.0, False), (6.0, True), (None, True)]
    faults = [
        FaultRecord("c", 1, number, "worker killed", 0.0, 1.0, recovery_s, alone)
        for number, (recovery_s, alone) in enumerate(times)
    ]
    append(path, faults)
    append(path, [FederationRecord("c", 1, 4, 60.0, 9, 9, 18, 2)])
    text = summarise(read([path]))
    assert "4 faults in 1 federations, of which 1 passed; 18 updates in 9 versions" in text
    assert "| worker killed | 4 | 2.0 s | 3.5 s | 6.0 s |" in text
