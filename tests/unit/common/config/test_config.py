"""The configuration: one file, every key documented, and errors that name the key in one line."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.config.config import FederationConfig, PhaseConfig
from common.config.loader import apply_offline, load, parse
from common.config.template import TEMPLATE
from common.config.toml_writer import dump
from common.errors import ConfigError


def refused(table: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(table, "federation.toml")
    assert "\n" not in str(caught.value) and caught.value.remedy
    return caught.value.what


def keys(value: Any, prefix: str = "") -> set[str]:
    if isinstance(value, dict):
        return {k for key, inner in value.items() for k in keys(inner, f"{prefix}.{key}")}
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return keys(value[0], prefix)
    return {prefix}


def test_the_template_parses_to_the_defaults() -> None:
    assert parse(tomllib.loads(TEMPLATE), "template") == FederationConfig()


def test_the_template_names_every_key() -> None:
    # Keys without a default are there as a comment: "# quorum = 3".
    lines = [line.removeprefix("# ") if " = " in line else line for line in TEMPLATE.splitlines()]
    text = "\n".join(line for line in lines if not line.startswith("An environment"))
    named = keys(tomllib.loads(text))
    assert named == keys(FederationConfig().model_dump(mode="json"))


def test_without_a_file_the_defaults_apply() -> None:
    assert load(None, {}) == FederationConfig()


# round trips

tables = st.fixed_dictionaries(
    {},
    optional={
        "run": st.fixed_dictionaries({"dir": st.text(st.characters(codec="utf-8"), max_size=9)}),
        "data": st.fixed_dictionaries(
            {
                "sft": st.text(),
                "columns": st.dictionaries(st.text(), st.text()),
                "alpha": st.floats(1e-9, 1e9),
                "clients": st.integers(1, 2**30),
            }
        ),
        "model": st.fixed_dictionaries(
            {"lora": st.fixed_dictionaries({"targets": st.lists(st.text(), max_size=3)})}
        ),
        "phase": st.lists(
            st.fixed_dictionaries({"lr": st.floats(1e-12, 10), "versions": st.integers(1, 9)}),
            min_size=1,
            max_size=3,
        ),
        "schedule": st.fixed_dictionaries(
            {"concurrency": st.integers(3, 9), "quorum": st.just(1)},
            optional={"buffer_size": st.integers(1, 3)},
        ),
    },
)


@given(tables)
def test_a_dumped_configuration_parses_to_itself(table: dict[str, Any]) -> None:
    config = parse(table, "test")
    assert parse(tomllib.loads(dump(config)), "dump") == config


# errors


@pytest.mark.parametrize(
    ("table", "named"),
    [
        ({"runs": {}}, "unknown key runs"),
        ({"run": {"nam": "x"}}, "unknown key run.nam"),
        ({"phase": [{}, {"lrr": 1}]}, "unknown key phase.1.lrr"),
        ({"model": {"lora": {"rank": 1}}}, "unknown key model.lora.rank"),
        ({"run": []}, "run"),
        ({"run": {"name": "a/b"}}, "run.name"),
        ({"run": {"name": "a.b"}}, "run.name"),
        ({"run": {"seed": -1}}, "run.seed"),
        ({"run": {"seed": 1.0}}, "run.seed"),
        ({"data": {"clients": "4"}}, "data.clients"),
        ({"data": {"clients": True}}, "data.clients"),
        ({"data": {"clients": -1}}, "data.clients"),
        ({"data": {"alpha": 0}}, "data.alpha"),
        ({"data": {"alpha": float("inf")}}, "data.alpha"),
        ({"data": {"heldout": 0.5}}, "data.heldout"),
        ({"phase": []}, "phase"),
        ({"phase": {}}, "phase"),
        ({"phase": [{"objective": "rlhf"}]}, "phase.0.objective"),
        ({"phase": [{}, {"objective": "classification"}]}, "need different models"),
        ({"phase": [{"label_smoothing": 0.5}]}, "phase.0.label_smoothing"),
        ({"model": {"lora": True}}, "model.lora"),
        ({"phase": [{"lr": float("nan")}]}, "phase.0.lr"),
        ({"phase": [{"prox_mu": float("inf")}]}, "phase.0.prox_mu"),
        ({"phase": [{"local_steps": 5, "local_epochs": 1}]}, "exactly one of local_steps"),
        ({"phase": [{"local_steps": 0}]}, "exactly one of local_steps"),
        ({"schedule": {"reissue": "commit", "buffer_size": 5}}, "buffer_size is above concurrency"),
        ({"schedule": {"quorum": 3}}, "quorum is above the buffer size"),
        ({"schedule": {"lease_s": float("inf")}}, "schedule.lease_s"),
        ({"aggregation": {"floor": 1.1}}, "aggregation.floor"),
        ({"aggregation": {"temperature": 0}}, "aggregation.temperature"),
        ({"aggregation": {"staleness_exponent": float("inf")}}, "aggregation.staleness_exponent"),
        ({"codec": {"adapter": "int8"}}, "codec.adapter"),
    ],
)
def test_a_wrong_key_or_value_is_named_in_one_line(table: dict[str, Any], named: str) -> None:
    what = refused(table)
    assert what.startswith("federation.toml: ") and named in what


@pytest.mark.parametrize(
    ("content", "named"),
    [(b"[run\n", "line 1"), (b"\xff\xfe", "cannot be read"), (b"a = 1\na = 2\n", "line 2")],
)
def test_a_file_that_is_no_toml_is_named(tmp_path: Path, content: bytes, named: str) -> None:
    path = tmp_path / "federation.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=named) as caught:
        load(path, {})
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_file_and_a_directory_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist; `fccl init"):
        load(tmp_path / "none.toml", {})
    with pytest.raises(ConfigError, match="is a directory"):
        load(tmp_path, {})


# environment


def test_a_variable_overrides_one_key(tmp_path: Path) -> None:
    path = tmp_path / "federation.toml"
    path.write_text("[schedule]\nconcurrency = 2\nflush_s = 9.0\n[[phase]]\n[[phase]]\nlr = 0.5\n")
    environ = {
        "FCCL_SCHEDULE__CONCURRENCY": "8",
        "FCCL_PHASE__1__LR": "1e-3",
        "FCCL_MODEL__LORA__R": "4",
        "FCCL_MODEL__NAME": "gpt2",
        "FCCL_DATA__SFT": "a file.jsonl",
        "FCCL_CACHE": "/tmp",
        "PATH": "/bin",
    }
    config = load(path, environ)
    assert (config.schedule.concurrency, config.schedule.flush_s) == (8, 9.0)
    assert [phase.lr for phase in config.phase] == [PhaseConfig().lr, 1e-3]
    assert (config.model.lora.r, config.model.name) == (4, "gpt2")
    assert config.data.sft == "a file.jsonl"


def test_a_variable_can_set_a_phase_without_a_file() -> None:
    assert load(None, {"FCCL_PHASE__0__VERSIONS": "3"}).phase[0].versions == 3


@pytest.mark.parametrize(
    ("variable", "value", "named"),
    [
        ("FCCL_SCHEDULE__CONCURENCY", "8", "unknown key schedule.concurency"),
        ("FCCL_SCHEDULE__CONCURRENCY", "many", "schedule.concurrency"),
        ("FCCL_PHASE__7__LR", "1", "no entry 7"),
        ("FCCL_PHASE__LR", "1", "number of the entry is missing"),
        ("FCCL_RUN__NAME__X", "1", "name is not a table"),
        ("FCCL_ODD__0__LR__X", "1", "there is no table"),
        ("FCCL___", "1", "unknown key"),
        ("FCCL_RUN__", "1", "unknown key run."),
    ],
)
def test_a_wrong_variable_is_an_error_that_names_it(
    tmp_path: Path, variable: str, value: str, named: str
) -> None:
    path = tmp_path / "federation.toml"
    path.write_text(("odd = [1]\n" if "ODD" in variable else "") + '[run]\nname = "x"\n')
    with pytest.raises(ConfigError, match=named) as caught:
        load(path, {variable: value})
    assert str(caught.value).startswith(f"{variable}: ")


def test_a_wrong_key_of_the_file_is_not_blamed_on_a_variable(tmp_path: Path) -> None:
    path = tmp_path / "federation.toml"
    path.write_text("[schedule]\nlease_s = 0.0\n")
    with pytest.raises(ConfigError, match=r"federation\.toml: schedule\.lease_s"):
        load(path, {"FCCL_SCHEDULE__CONCURRENCY": "3"})


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0")))
def test_any_text_in_a_variable_is_a_value_or_a_configuration_error(text: str) -> None:
    try:
        load(None, {"FCCL_RUN__NAME": text, "FCCL_MODEL__MAX_LENGTH": text})
    except ConfigError as error:
        assert "\n" not in str(error)


def test_the_buffer_is_half_the_tasks_or_all_of_a_round() -> None:
    def of(**schedule: Any) -> int:
        return parse({"schedule": schedule}, "test").schedule.buffer

    assert of(concurrency=5) == 2
    assert of(concurrency=1) == 1
    assert of(concurrency=5, reissue="commit") == 5
    assert of(concurrency=5, buffer_size=7) == 7


@pytest.mark.parametrize(
    ("table", "key"),
    [
        ({"phase": [{"lr": 11.0}]}, "phase.0.lr"),
        ({"phase": [{"batch_size": 5000}]}, "phase.0.batch_size"),
        ({"model": {"max_length": 200_000}}, "model.max_length"),
    ],
)
def test_values_that_do_not_fit_a_task_are_refused_by_their_key(
    table: dict[str, Any], key: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(key)):
        parse(table, "f.toml")


# without the hub

PHASES = [{}, {"objective": "dpo"}]


def test_the_overrides_of_offline_apply_without_the_hub() -> None:
    offline = {"model.name": "offline:gpt2-tiny", "phase.1.lr": 1e-3, "data.labels": ["a", "b"]}
    config = parse({"model": {"name": "gpt2"}, "phase": PHASES, "offline": offline}, "test")
    assert config.model.name == "gpt2"
    without = apply_offline(config)
    assert (without.model.name, without.phase[1].lr) == ("offline:gpt2-tiny", 1e-3)
    assert without.phase[0] == config.phase[0]
    assert without.data.labels == ("a", "b")
    assert without.offline == {}
    assert apply_offline(without) == without


def test_a_key_of_offline_may_be_quoted_or_dotted_or_in_a_table(tmp_path: Path) -> None:
    written = (
        '[offline]\n"model.name" = "x"\n"phase.0.lr" = 0.5',
        '[offline]\nmodel.name = "x"\nphase.0.lr = 0.5',
        '[offline.model]\nname = "x"\n[offline.phase.0]\nlr = 0.5',
    )
    configs = [parse(tomllib.loads(text), "test") for text in written]
    assert configs[0].offline == {"model.name": "x", "phase.0.lr": 0.5}
    assert configs.count(configs[0]) == 3
    assert parse(tomllib.loads(dump(configs[0])), "dump") == configs[0]


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("model.nam", "x", "unknown key model.nam"),
        ("modle.name", "x", "unknown key modle"),
        ("model", "x", "model"),
        ("phase.0.lr", "much", "phase.0.lr"),
        ("phase.0.lr", 11.0, "phase.0.lr"),
        ("phase.9.lr", 1.0, "no entry 9"),
        ("phase.lr", 1.0, "number of the entry is missing"),
        ("model.name.x", "x", "name is not a table"),
        ("phase.1.objective", "classification", "need different models"),
        ("run.name", "x", "does not depend on the hub"),
        ("store.url", "x", "does not depend on the hub"),
        ("offline.model", "x", "does not depend on the hub"),
        ("", "x", "unknown key"),
        ("model.name", {}, "offline.model.name"),
    ],
)
def test_a_wrong_key_of_offline_is_an_error_also_with_the_hub(
    key: str, value: object, named: str
) -> None:
    what = refused({"phase": PHASES, "offline": {key: value}})
    assert what.startswith("federation.toml: ") and named in what
    assert "offline" in what
