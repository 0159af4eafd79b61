"""A whole federation that learns from ratings, after instructions, and its report."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cli.demo.embedded import EmbeddedFederation, FederationCallbacks
from common.config.config import FederationConfig
from common.config.loader import parse
from common.errors import DataError
from coordinator.samples_source import SamplesSource
from coordinator.storage.run import open_run
from evaluation.evaluator import FULL_LIMITS
from evaluation.report import files
from evaluation.report.build import build_report
from learning.data import rows
from learning.data.row_types import RatedAnswer
from learning.training.device import Compute
from preparation.run import create_prepared_run
from tests.support.evaluated_runs import evaluator_of
from tests.support.tiny_model import tiny_model, tiny_tokenizer


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FCCL_CACHE", str(tmp_path / "cache"))
    tiny_model().save_pretrained(tmp_path / "base")
    tiny_tokenizer().save_pretrained(tmp_path / "base")
    return tmp_path


def config_of(place: Path, **data: object) -> FederationConfig:
    return parse(
        {
            "run": {"name": "rated", "dir": str(place)},
            "model": {"name": str(place / "base"), "max_length": 192, "lora": {"r": 4}},
            "data": {"rows": 120, "clients": 2, **data},
            "phase": [
                {"versions": 1, "local_steps": 2, "batch_size": 8, "lr": 5e-3},
                {
                    "objective": "kto",
                    "versions": 4,
                    "local_steps": 6,
                    "batch_size": 8,
                    "lr": 1e-2,
                    "bad_weight": 1.5,
                },
            ],
            "schedule": {"concurrency": 2, "buffer_size": 2},
            "samples": {"prompts": 0},
        },
        "test",
    )


def rated(count: int) -> list[RatedAnswer]:
    """Return answers that end with thanks and are good, and answers that do not and are bad."""
    asked = [f"What is {i} and {i + 1}?" for i in range(count)]
    return [
        RatedAnswer(ask, "The sum is here. " + ("Thank you." if i % 2 else "Go away."), bool(i % 2))
        for i, ask in enumerate(asked)
    ]


def test_a_phase_of_ratings_raises_the_margin_of_rewards_and_is_reported(place: Path) -> None:
    rows.write(place / "kto.jsonl", rated(120))
    config = config_of(place, kto=str(place / "kto.jsonl"))
    said: list[str] = []
    create_prepared_run(config, place / "cache", lambda *_: None, said.append)
    assert "rated answers: " in "\n".join(said)
    run = open_run(config, lambda _: place / "base")
    federation = EmbeddedFederation(
        run,
        Compute(torch.device("cpu"), threads=1, autocast=False),
        config.incremental,
        SamplesSource(),
        FederationCallbacks(on_event=lambda event: None),
    )
    federation.start()
    outcome = federation.join()
    assert (outcome.complete, outcome.version) == (True, 5)
    limits = replace(FULL_LIMITS, samples=1, new_tokens=2)
    report = build_report(evaluator_of(run.directory), 5, limits)
    path = files.write_evaluation(report, place / "report")
    found = json.loads(path.with_suffix(".json").read_text())["kinds"]["kto"]
    assert found["reference"] == 1
    _, begun, ended = found["heldout"]
    assert (begun["reward_margin"], begun["reward_accuracy"]) == (0.0, 0.5)
    assert ended["reward_margin"] > 0.05
    assert ended["reward_accuracy"] > 0.7
    assert ended["loss"] < begun["loss"]
    assert "## Ratings (kto)" in path.read_text()


def test_a_plan_whose_answers_are_all_rated_the_same_is_refused(place: Path) -> None:
    liked = [replace(row, good=True) for row in rated(120)]
    rows.write(place / "kto.jsonl", liked)
    config = config_of(place, kto=str(place / "kto.jsonl"))
    with pytest.raises(DataError, match="are rated good: kto learns from the difference") as error:
        create_prepared_run(config, place / "cache", lambda *_: None, lambda _: None)
    assert "add bad answers" in error.value.remedy


def test_clients_with_answers_of_one_rating_are_accepted_and_named(place: Path) -> None:
    rows.write(place / "kto.jsonl", rated(120))
    config = config_of(place, kto=str(place / "kto.jsonl"), partition="label", alpha=1e-6)
    said: list[str] = []
    create_prepared_run(config, place / "cache", lambda *_: None, said.append)
    skew = (place / "rated" / "clients" / "skew.txt").read_text()
    assert any("answers only" in line for line in said)
    assert "answers only" in skew
