"""Runs whose rows all stay at the sites begin without a row, or with held-out ones alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from cli import checks
from cli.run import init
from common.config import loader
from common.config.config import FederationConfig
from common.config.sites_only_template import SITES_ONLY_TEMPLATE
from common.errors import ConfigError, DataError
from common.run_directory.recorded_run import read_run
from coordinator.storage import run as runs
from learning.data import prepared_data
from preparation.run import create_prepared_run
from tests.support.tiny_encoder import encoder, saved
from tests.support.tiny_model import tiny_model, tiny_tokenizer


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model")
    tiny_model().save_pretrained(path)
    tiny_tokenizer().save_pretrained(path)
    return path


def sites_only(place: Path, model: Path, length: int = 64, **tables: Any) -> FederationConfig:
    own = {
        "run": {"name": "r", "dir": str(place)},
        "model": {"name": str(model), "max_length": length, "lora": {"r": 2}},
        "data": {"clients": 0} | tables.pop("data", {}),
    }
    return loader.parse(own | tables, "test")


def create(config: FederationConfig) -> list[str]:
    lines: list[str] = []
    create_prepared_run(config, Path(config.run.dir) / "cache", lambda *_: None, lines.append)
    return lines


def test_a_run_of_sites_only_begins_without_a_row(tmp_path: Path, model: Path) -> None:
    create(sites_only(tmp_path, model))
    run = read_run(tmp_path / "r")
    assert (run.rows, run.clients, run.sources) == ({}, {}, {})
    assert run.versions_on_disk() == (0,)
    assert not (tmp_path / "r" / "clients").exists()


def test_held_out_rows_are_copied_and_those_that_cannot_be_used_are_named(
    tmp_path: Path, model: Path
) -> None:
    rows = tmp_path / "heldout.jsonl"
    lines = [{"instruction": f"Say {i}.", "output": f"It is {i}."} for i in range(5)]
    rows.write_text("\n".join(map(json.dumps, [{"instruction": "Say"}, *lines])))
    said = create(sites_only(tmp_path, model, evaluation={"rows": str(rows)}))
    rows.unlink()
    assert said[0] == f"skipped {rows}:1: output is missing"
    assert said[1].startswith(f"{rows}: 5 of 6 rows can be used; 1: output is missing")
    prepared = prepared_data.load(tmp_path / "r" / "clients")
    assert (prepared.shards, prepared.heldout_rows) == ((), {"sft": 5})
    assert read_run(tmp_path / "r").sources["sft"]["used"] == 5


def test_a_row_of_another_kind_of_the_plan_is_not_reported_as_skipped(
    tmp_path: Path, model: Path
) -> None:
    rows = tmp_path / "heldout.jsonl"
    pair = {"prompt": "Is it odd?", "chosen": "It is.", "rejected": "No idea."}
    lines = [{"instruction": "Say 1.", "output": "It is 1."}, pair, {"text": "?"}]
    rows.write_text("\n".join(map(json.dumps, lines)))
    plan = [{"versions": 1}, {"objective": "dpo", "versions": 1}]
    said = create(sites_only(tmp_path, model, evaluation={"rows": str(rows)}, phase=plan))
    assert [line for line in said if line.startswith("skipped")] == [
        f"skipped {rows}:3: instruction is missing"
    ]
    assert prepared_data.load(tmp_path / "r" / "clients").heldout_rows == {"sft": 1, "va": 1}


def test_held_out_rows_of_the_wrong_kind_are_refused(tmp_path: Path, model: Path) -> None:
    rows = tmp_path / "heldout.jsonl"
    rows.write_text(json.dumps({"text": "a", "label": "b"}))
    with pytest.raises(DataError, match="has no usable row"):
        create(sites_only(tmp_path, model, evaluation={"rows": str(rows)}))
    assert not (tmp_path / "r").exists()


def test_a_classifier_of_sites_only_takes_its_classes_from_the_plan(tmp_path: Path) -> None:
    saved(encoder(), tmp_path / "encoder")
    plan = [{"objective": "classification", "versions": 1}]
    path = tmp_path / "encoder"
    create(sites_only(tmp_path, path, 32, phase=plan, data={"labels": ["bad", "good"]}))
    assert read_run(tmp_path / "r").labels == ("bad", "good")
    twice = sites_only(tmp_path / "2", path, 32, phase=plan, data={"labels": ["a", "a"]})
    with pytest.raises(ConfigError, match="names 'a' twice"):
        create(twice)


def test_the_plan_of_init_sites_only_starts_as_it_is(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(init.command, ["--sites-only"])
    assert result.output == "wrote federation.toml\n"
    here = {"FCCL_MODEL__NAME": str(model), "FCCL_MODEL__MAX_LENGTH": "64"}
    config = loader.load(tmp_path / "federation.toml", here)
    assert config.sites_only and config.evaluates_at_sites
    checks.check_coordinator(config, "start")
    create(config)
    run = runs.open_run(config, lambda base: model)
    assert (run.plan.clients, run.plan.min_clients, run.plan.evaluation.every) == ({}, 2, 4)
    run.journal.close()


def test_the_commented_keys_of_that_plan_exist(tmp_path: Path) -> None:
    text = SITES_ONLY_TEMPLATE.replace("\n# ca", "\nca").replace("\n# public", "\npublic")
    text = text.replace("\n# rows", "\nrows").replace("\n# labels", "\nlabels")
    text = text.replace("\n# [samples]\n# prompts", "\n[samples]\nprompts")
    (tmp_path / "f.toml").write_text(text)
    config = loader.load(tmp_path / "f.toml", {})
    assert "\n# " not in text.partition("[run]")[2]
    assert config.samples.prompts_file and config.evaluation.rows and config.store.ca
