"""Precision of `fccl evaluate` on a machine where training computes in bfloat16."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from cli.models.evaluate import command
from learning.training import device
from tests.support.evaluated_runs import CPU, causal_config, make_run, write_sources

FEW = ("--sft", "2", "--va", "2", "--gen-samples", "1", "--gen-tokens", "2")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = write_sources(tmp_path_factory.mktemp("place"))
    return make_run(tmp_path_factory.mktemp("runs"), causal_config(place))


@pytest.fixture(autouse=True)
def fast_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "detect", lambda: replace(CPU, autocast=True))


def evaluated(run: Path, out: Path, *options: str) -> dict[str, Any]:
    done = CliRunner().invoke(command, [str(run), *FEW, "--out", str(out), "--json", *options])
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_precise_computes_in_float32_and_the_report_says_which_it_was(
    run: Path, tmp_path: Path
) -> None:
    usual = evaluated(run, tmp_path)
    assert usual["autocast"]
    assert "computed in bfloat16" in (tmp_path / "evaluation.md").read_text()
    precise = evaluated(run, tmp_path, "--precise")
    assert not precise["autocast"]
    assert "bfloat16" not in (tmp_path / "evaluation.md").read_text()
    one, two = (found["base"]["nats_per_token"] for found in (usual, precise))
    assert one == pytest.approx(two, rel=0.02) and one != two
