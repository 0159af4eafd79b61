"""Settings of a new run that would silently do nothing are refused; defaults never are."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from common.config import loader, toml_writer
from common.config.effect import check_effect
from common.config.template import TEMPLATE
from common.errors import ConfigError

ROOT = Path(__file__).parents[4]


def refusal(table: dict[str, Any]) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        check_effect(loader.parse(table, "test"))
    assert caught.value.remedy
    return caught.value


@pytest.mark.parametrize("objective", ["sft", "dpo", "kto", "classification"])
def test_a_file_with_every_key_at_its_default_is_fine(objective: str) -> None:
    table = tomllib.loads(TEMPLATE)
    table["phase"][0]["objective"] = objective
    config = loader.parse(table, "test")
    check_effect(config)
    check_effect(loader.parse(tomllib.loads(toml_writer.dump(config)), "test"))


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.toml")), ids=lambda p: p.name)
def test_every_configuration_that_is_shipped_has_only_settings_with_effect(path: Path) -> None:
    config = loader.load(path, {})
    check_effect(config)
    check_effect(loader.apply_offline(config))


@pytest.mark.parametrize(
    ("phase", "key"),
    [
        ({"beta": 0.2}, "beta"),
        ({"preference_loss": "ipo"}, "preference_loss"),
        ({"label_smoothing": 0.1}, "label_smoothing"),
        ({"sft_weight": 1.0}, "sft_weight"),
        ({"logit_adjustment": 0.5}, "logit_adjustment"),
        ({"objective": "dpo", "logit_adjustment": 0.5}, "logit_adjustment"),
        ({"objective": "classification", "sft_weight": 1.0}, "sft_weight"),
        ({"objective": "classification", "beta": 0.2}, "beta"),
        ({"objective": "classification", "turns": "last"}, "turns"),
        ({"objective": "dpo", "turns": "last"}, "turns"),
        ({"objective": "dpo", "good_weight": 2.0}, "good_weight"),
        ({"objective": "kto", "sft_weight": 1.0}, "sft_weight"),
    ],
)
def test_a_setting_of_another_objective_is_refused_with_its_phase(
    phase: dict[str, Any], key: str
) -> None:
    given = phase | {"objective": phase.get("objective", "sft")}
    first = {"objective": "classification" if given["objective"] == "classification" else "sft"}
    error = refusal({"phase": [first, given]})
    assert f"phase.1.{key} has no effect with the objective {given['objective']}" in error.what


def test_label_smoothing_with_ipo_is_refused() -> None:
    phase = {"objective": "dpo", "preference_loss": "ipo", "label_smoothing": 0.1}
    assert 'no effect with preference_loss = "ipo"' in refusal({"phase": [phase]}).what
    for usual in ({"label_smoothing": 0.0}, {"preference_loss": "sigmoid"}):
        check_effect(loader.parse({"phase": [phase | usual]}, "test"))


def test_dropout_has_an_effect_unless_every_phase_is_dpo_or_kto() -> None:
    model = {"lora": {"dropout": 0.2}}
    dpo, kto = {"objective": "dpo"}, {"objective": "kto"}
    assert "model.lora.dropout" in refusal({"model": model, "phase": [dpo, kto]}).what
    check_effect(loader.parse({"model": model, "phase": [{}, dpo]}, "test"))
    check_effect(loader.parse({"model": {"lora": {"dropout": 0.0}}, "phase": [dpo]}, "test"))


def test_kto_needs_batches_of_two_or_more() -> None:
    alone = refusal({"phase": [{}, {"objective": "kto", "batch_size": 1}]})
    assert "phase.1.batch_size is 1" in alone.what
    check_effect(loader.parse({"phase": [{"objective": "kto", "batch_size": 2}]}, "test"))


def test_other_settings_without_effect_are_refused() -> None:
    assert "model.adapter needs LoRA" in refusal({"model": {"adapter": "x", "lora": False}}).what
    assert "data.labels" in refusal({"data": {"labels": ["a", "b"]}}).what
    assert "schedule.quorum" in refusal({"schedule": {"quorum": 1}}).what
    classes = {"model": {"prompt": "chat"}, "phase": [{"objective": "classification"}]}
    assert "model.prompt" in refusal(classes).what


@pytest.mark.parametrize(
    ("limits", "phase", "words"),
    [
        ([9, 2], {"local_steps": 5}, "no range of steps"),
        ([0, 9], {"local_steps": 5}, "no range of steps"),
        ([2, 9], {"local_steps": 0, "local_epochs": 1}, "1 epochs"),
        ([2, 9], {"local_steps": 10}, "outside of"),
    ],
)
def test_adaptive_steps_need_a_range_around_the_local_steps(
    limits: list[int], phase: dict[str, Any], words: str
) -> None:
    found = refusal({"schedule": {"adaptive_steps": limits}, "phase": [phase]})
    assert "schedule.adaptive_steps" in found.what
    assert words in found.what
    check_effect(loader.parse({"schedule": {"adaptive_steps": [2, 9]}}, "test"))


@pytest.mark.parametrize("model", [{"quantization": "nf4"}, {"dtype": "bfloat16"}])
def test_weights_that_are_not_float32_need_lora(model: dict[str, Any]) -> None:
    (key,) = model
    assert f"model.{key}" in refusal({"model": model | {"lora": False}}).what
    check_effect(loader.parse({"model": model}, "test"))


def test_a_run_that_began_with_such_a_setting_can_still_be_read() -> None:
    phase = {"objective": "dpo", "preference_loss": "ipo", "label_smoothing": 0.1}
    assert loader.parse({"phase": [phase]}, "test").phase[0].label_smoothing == 0.1


SITES_ONLY = {"clients": 0}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("sft", "rows.jsonl"),
        ("kto", "rows.jsonl"),
        ("rows", 100),
        ("dir", "data"),
        ("alpha", 0.1),
        ("partition", "length"),
        ("heldout", 0.2),
        ("columns", {"output": "answer"}),
    ],
)
def test_settings_of_dealt_rows_are_refused_where_all_rows_stay_at_the_sites(
    key: str, value: object
) -> None:
    assert f"data.{key} has no effect" in refusal({"data": {**SITES_ONLY, key: value}}).what


def test_columns_have_an_effect_on_the_held_out_rows_of_sites_only_runs() -> None:
    data = {**SITES_ONLY, "columns": {"output": "answer"}}
    check_effect(loader.parse({"data": data, "evaluation": {"rows": "rows.jsonl"}}, "test"))


@pytest.mark.parametrize("labels", [[], ["one"]])
def test_a_classifier_whose_rows_stay_at_the_sites_needs_its_classes(labels: list[str]) -> None:
    table = {
        "data": {**SITES_ONLY, "labels": labels},
        "phase": [{"objective": "classification"}],
    }
    assert refusal(table).what.startswith("data.labels is missing")


@pytest.mark.parametrize(
    ("table", "what"),
    [
        ({"evaluation": {"rows": "r.jsonl"}}, "evaluation.rows has no effect"),
        ({"evaluation": {"every": 2}}, "evaluation.every has no effect"),
        ({"evaluation": {"max_rows": 20}}, "evaluation.max_rows has no effect"),
        ({"evaluation": {"deadline_s": 9.0}}, "evaluation.deadline_s has no effect"),
        ({"data": SITES_ONLY, "evaluation": {"rows": "synthetic"}}, "is not a file"),
        (
            {"data": SITES_ONLY, "evaluation": {"federated": False, "every": 2}},
            "evaluation.every has no effect",
        ),
    ],
)
def test_settings_of_evaluations_that_do_not_take_place_are_refused(
    table: dict[str, Any], what: str
) -> None:
    assert what in refusal(table).what


@pytest.mark.parametrize(
    ("aggregation", "what"),
    [
        ({"contribution_source": "server", "contribution_mode": "size"}, "has no effect"),
        ({"score_deadline_s": 5.0}, "score_deadline_s has no effect"),
        ({"contribution_source": "cosine", "score_deadline_s": 5.0}, "score_deadline_s"),
        ({"contribution_source": "server"}, "needs held-out rows"),
    ],
)
def test_contribution_sources_that_cannot_work_in_a_run_of_sites_only_are_refused(
    aggregation: dict[str, Any], what: str
) -> None:
    assert what in refusal({"data": SITES_ONLY, "aggregation": aggregation}).what


def test_cosine_needs_several_updates_per_version() -> None:
    table = {"aggregation": {"contribution_source": "cosine"}}
    check_effect(loader.parse(table, "test"))
    assert "buffer_size is 1" in refusal({**table, "schedule": {"buffer_size": 1}}).what


def test_limits_of_evaluations_have_an_effect_where_clients_score_updates() -> None:
    table = {
        "aggregation": {"contribution_source": "federated", "score_deadline_s": 5.0},
        "evaluation": {"max_rows": 20},
    }
    check_effect(loader.parse(table, "test"))
