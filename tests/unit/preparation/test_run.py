"""Preparation: rows are dealt once, found again, and refused where they differ."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import BertConfig, GPT2Config, RobertaConfig, T5Config

from common.config import loader
from common.config.config import FederationConfig
from common.errors import ConfigError, DataError, ModelError
from common.protocol.fields import RowKind
from common.protocol.tensors import Tensors
from learning.data.rows import read
from learning.models import base
from learning.models.base import BaseModel
from preparation import base_model
from preparation.base_model import announce_size, apply_offline_fallback
from preparation.data import (
    PREPARED_FILE,
    PreparedRows,
    check_columns,
    check_length,
    prepare_rows,
)
from preparation.run import check_ranks, check_update, create_prepared_run, prepare_run
from tests.support.tiny_model import tiny_model, tiny_tokenizer

DPO = {"objective": "dpo"}
LONG = "again and " * 200


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    path = tmp_path_factory.mktemp("model")
    tiny_model().save_pretrained(path)
    tiny_tokenizer().save_pretrained(path)
    return base.resolve(str(path), None, path, lambda *_: None)


def config(*phases: dict[str, Any], **tables: dict[str, Any]) -> FederationConfig:
    """Return a plan over two clients, of sft by default."""
    data = {"rows": 60, "clients": 2} | tables.pop("data", {})
    whole = {"phase": list(phases) or [{}], "data": data, **tables}
    return loader.parse(whole, "test")


def quiet(_: str) -> None: ...


# dealing


def test_a_base_that_is_too_large_to_be_sent_to_workers_is_announced(
    model: BaseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    announce_size(model, lines.append)
    assert lines == []
    monkeypatch.setattr(base_model, "MAX_SENT", 1000)
    announce_size(model, lines.append)
    announce_size(replace(model, kind="hub"), lines.append)
    assert "workers on other machines need a copy of it and `fccl worker --base DIR`" in lines[0]
    assert "workers on other machines download it from the hub, or need a copy" in lines[1]


def test_every_client_is_dealt_rows_of_each_kind_that_the_plan_learns(
    tmp_path: Path, model: BaseModel
) -> None:
    lines: list[str] = []
    dealt = prepare_rows(config({}, DPO), lambda: model, tmp_path / "rows", lines.append)
    assert list(dealt.rows) == ["client_0", "client_1"]
    assert all(set(own) == {"sft", "va"} for own in dealt.rows.values())
    assert min(n for own in dealt.rows.values() for n in own.values()) >= 1
    assert not list((tmp_path / "rows").glob("*_cls.jsonl"))
    assert lines == ["synthetic: 60 of 60 rows can be used"] * 2
    assert dealt.labels == ()


@pytest.mark.parametrize(
    ("name", "text"),
    [("nowhere.tsv", None), ("one.tsv", "text\tlabel\ngood\tyes\nfine\tyes\n")],
    ids=["no such file", "one class"],
)
def test_a_mistake_in_the_data_is_reported_before_a_model_is_made(
    tmp_path: Path, name: str, text: str | None
) -> None:
    def find() -> BaseModel:
        raise AssertionError("the model is looked for first")

    if text is not None:
        (tmp_path / name).write_text(text)
    plan = config({"objective": "classification"}, data={"cls": str(tmp_path / name)})
    with pytest.raises(DataError):
        prepare_rows(plan, find, tmp_path / "rows", quiet)


def test_a_kind_that_two_phases_learn_is_read_once(tmp_path: Path, model: BaseModel) -> None:
    lines: list[str] = []
    prepare_rows(config({}, DPO, {}), lambda: model, tmp_path / "rows", lines.append)
    assert len(lines) == 2


def test_clients_are_dealt_only_rows_that_the_model_has_room_for(
    tmp_path: Path, model: BaseModel
) -> None:
    """Otherwise a client would be weighted by rows that it never uses."""
    rows = [{"instruction": f"Say {i}.", "output": f"It is {i}."} for i in range(30)]
    long = [{"instruction": f"{i}: {LONG}", "output": "Yes."} for i in range(10)]
    (tmp_path / "i.jsonl").write_text("\n".join(map(json.dumps, [*long, *rows])))
    lines: list[str] = []
    plan = config(data={"sft": str(tmp_path / "i.jsonl")})
    dealt = prepare_rows(plan, lambda: model, tmp_path / "rows", lines.append)
    assert lines[-1].endswith("30 of 40 rows can be used; 10: prompt leaves no room for a response")
    assert dealt.sources["sft"]["used"] == 30
    everything = [
        row for path in (tmp_path / "rows").glob("*_sft.jsonl") for row in read("sft", path).rows
    ]
    assert len(everything) == 30
    assert not any(LONG in row.instruction for row in everything)


def test_prepared_rows_are_used_without_reading_a_source(tmp_path: Path, model: BaseModel) -> None:
    source = tmp_path / "i.jsonl"
    rows = [{"instruction": f"Say {i}.", "output": f"It is {i}."} for i in range(30)]
    source.write_text("\n".join(map(json.dumps, rows)))
    plan = config(data={"sft": str(source)})
    first = prepare_rows(plan, lambda: model, tmp_path / "rows", quiet)
    before = {path.name: path.read_bytes() for path in (tmp_path / "rows").iterdir()}
    source.unlink()

    def loud(line: str) -> None:
        raise AssertionError(line)

    again = prepare_rows(plan, lambda: model, tmp_path / "rows", loud)
    assert same(again) == same(first)
    assert {path.name: path.read_bytes() for path in (tmp_path / "rows").iterdir()} == before


def same(dealt: PreparedRows) -> tuple[Any, ...]:
    rows = {client: dict(own) for client, own in dealt.rows.items()}
    return dealt.folder, rows, dealt.labels, dict(dealt.sources)


def test_an_unfinished_preparation_is_done_again(tmp_path: Path, model: BaseModel) -> None:
    first = prepare_rows(config(), lambda: model, tmp_path / "rows", quiet)
    for lost in (
        [PREPARED_FILE],
        ["manifest.json"],
        [PREPARED_FILE, "manifest.json"],
        [PREPARED_FILE, "manifest.json", "client_1_sft.jsonl"],
    ):
        for name in lost:
            (tmp_path / "rows" / name).unlink()
        assert same(prepare_rows(config(), lambda: model, tmp_path / "rows", quiet)) == same(first)


# rows prepared for something else

KEYS: dict[str, dict[str, dict[str, Any]]] = {
    "run.seed": {"run": {"seed": 9}},
    "data.alpha": {"data": {"alpha": 9.0}},
    "data.partition": {"data": {"partition": "length"}},
    "data.clients": {"data": {"clients": 3}},
    "data.heldout": {"data": {"heldout": 0.2}},
    "data.rows": {"data": {"rows": 90}},
    "data.labels": {"data": {"labels": ["a", "b"]}},
    "data.columns": {"data": {"columns": {"input": "context"}}},
    "model.max_length": {"model": {"max_length": 128}},
}


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory, model: BaseModel) -> Path:
    folder = tmp_path_factory.mktemp("ready") / "rows"
    prepare_rows(config(), lambda: model, folder, quiet)
    return folder


@pytest.mark.parametrize("key", KEYS)
def test_a_folder_of_other_rows_is_refused_with_the_key_that_differs(
    ready: Path, model: BaseModel, key: str
) -> None:
    with pytest.raises(DataError) as caught:
        prepare_rows(config(**KEYS[key]), lambda: model, ready, quiet)
    assert f"{ready} was prepared with {key} = " in caught.value.what
    assert "another folder" in caught.value.remedy


def test_a_folder_for_other_phases_or_sources_is_refused_with_both(
    ready: Path, model: BaseModel
) -> None:
    with pytest.raises(DataError, match=r"from {'sft': 'synthetic'}, not from .*'va': 'synthetic'"):
        prepare_rows(config({}, DPO), lambda: model, ready, quiet)
    with pytest.raises(DataError, match=r"from {'sft': 'synthetic'}, not from {'sft': 'mine"):
        prepare_rows(config(data={"sft": "mine.jsonl"}), lambda: model, ready, quiet)


def test_a_folder_for_another_model_is_refused(ready: Path, model: BaseModel) -> None:
    other = BaseModel(model.name, None, "local", "0" * 64, model.path)
    with pytest.raises(DataError, match=r"for another base model \(model\.name\)"):
        prepare_rows(config(), lambda: other, ready, quiet)


def test_a_source_that_is_not_needed_may_have_any_name(ready: Path, model: BaseModel) -> None:
    assert prepare_rows(config(data={"va": "nowhere.jsonl"}), lambda: model, ready, quiet).rows


def test_the_folder_of_rows_is_not_one_of_their_settings(ready: Path, model: BaseModel) -> None:
    assert prepare_rows(config(data={"dir": str(ready)}), lambda: model, ready, quiet).rows


def test_a_run_takes_the_rows_of_a_folder_and_nothing_that_lies_beside_them(
    tmp_path: Path, model: BaseModel
) -> None:
    """The folder may be the one in which the run directory itself is made."""
    (tmp_path / "instructions.jsonl").write_text("our own")
    (tmp_path / "notes").mkdir()
    (tmp_path / "skew_notes.png").mkdir()
    (tmp_path / "client_9_sft.jsonl").write_text("of a preparation that was cut off")
    partial = tmp_path / "runs" / ".x.partial"
    partial.mkdir(parents=True)
    plan = config(data={"dir": str(tmp_path)}, model={"name": str(model.path)})
    begun = prepare_run(plan, tmp_path, lambda *_: None, quiet, partial)
    names = {path.name for path in (partial / "clients").iterdir()}
    assert names == {
        "client_0_sft.jsonl", "client_1_sft.jsonl", "heldout_sft.jsonl", "data.json",
        "manifest.json", "skew.txt", "skew_sft.png",
    }  # fmt: skip
    again = prepare_rows(plan, lambda: model, partial / "clients", quiet)
    assert again.rows == begun.rows


def test_a_folder_is_refused_when_the_file_that_it_was_made_from_has_changed(
    tmp_path: Path, model: BaseModel
) -> None:
    """Otherwise a user who corrects a file and prepares again would train on the old rows."""
    source = tmp_path / "i.jsonl"
    rows = [{"instruction": f"Say {i}.", "output": f"It is {i}."} for i in range(30)]
    source.write_text("\n".join(map(json.dumps, rows)))
    plan = config(data={"sft": str(source)})
    prepare_rows(plan, lambda: model, tmp_path / "rows", quiet)
    source.touch()
    prepare_rows(plan, lambda: model, tmp_path / "rows", quiet)
    source.write_text("\n".join(map(json.dumps, rows[:-1])))
    with pytest.raises(DataError, match=r"rows was prepared from .*i\.jsonl.* has changed since"):
        prepare_rows(plan, lambda: model, tmp_path / "rows", quiet)


@pytest.mark.parametrize(
    ("text", "says"),
    [(None, "cannot be read: No such file"), ("", "has 0 rows, not the"), ("{}\n", "has 1 rows")],
)
def test_a_folder_that_lost_rows_is_refused_with_the_file(
    tmp_path: Path, model: BaseModel, text: str | None, says: str
) -> None:
    prepare_rows(config(), lambda: model, tmp_path / "rows", quiet)
    client = tmp_path / "rows" / "client_1_sft.jsonl"
    client.unlink()
    if text is not None:
        client.write_text(text)
    with pytest.raises(DataError, match=rf"client_1_sft\.jsonl {says}.*; put the file back"):
        prepare_rows(config(), lambda: model, tmp_path / "rows", quiet)


def test_a_folder_that_cannot_be_written_is_refused_in_a_line(
    tmp_path: Path, model: BaseModel
) -> None:
    (tmp_path / "rows" / "client_0_sft.jsonl").mkdir(parents=True)
    with pytest.raises(DataError, match=r"rows cannot be written to .*rows: Is a directory"):
        prepare_rows(config(), lambda: model, tmp_path / "rows", quiet)


# failed starts


def test_a_failed_start_removes_the_rows_that_it_has_dealt(
    tmp_path: Path, model: BaseModel
) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for path in model.path.iterdir():
        (broken / path.name).write_bytes(path.read_bytes())
    (broken / "model.safetensors").write_bytes(b"no tensors")
    plan = config(model={"name": str(broken)}, run={"dir": str(tmp_path / "runs")})
    with pytest.raises(ModelError):
        create_prepared_run(plan, tmp_path, lambda *_: None, quiet)
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_failed_start_keeps_prepared_rows_of_another_folder(
    tmp_path: Path, model: BaseModel, ready: Path
) -> None:
    before = sorted(ready.iterdir())
    plan = config(
        data={"dir": str(ready)},
        model={"name": str(model.path), "lora": {"targets": ["no_such_layer"]}},
        run={"dir": str(tmp_path / "runs")},
    )
    with pytest.raises(ModelError, match=r"model\.lora\.targets"):
        create_prepared_run(plan, tmp_path, lambda *_: None, quiet)
    assert sorted(ready.iterdir()) == before
    assert list((tmp_path / "runs").iterdir()) == []


# columns


@pytest.mark.parametrize("field", ["instruction", "prompt", "topic"])
def test_a_plan_of_two_kinds_takes_the_fields_of_both(field: str) -> None:
    check_columns(config({}, DPO, data={"columns": {field: "x"}}))


@pytest.mark.parametrize(("kind", "field"), [("sft", "chosen"), ("sft", "text"), ("va", "output")])
def test_a_field_that_no_row_of_the_plan_has_is_refused(kind: RowKind, field: str) -> None:
    phase = {"sft": {}, "va": DPO}[kind]
    with pytest.raises(ConfigError, match=rf"data\.columns names '{field}'"):
        check_columns(config(phase, data={"columns": {field: "x"}}))


# lengths


def test_a_length_that_the_model_has_positions_for_is_fine() -> None:
    check_length(512, GPT2Config(n_positions=512))
    check_length(512, BertConfig(max_position_embeddings=512))


def test_a_length_over_the_positions_of_the_model_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"model.max_length is 513, but the model has 512"):
        check_length(513, GPT2Config(n_positions=512))


def test_positions_that_roberta_keeps_for_padding_do_not_count() -> None:
    check_length(512, RobertaConfig(max_position_embeddings=514, pad_token_id=1))
    with pytest.raises(ConfigError, match="has 512 positions"):
        check_length(513, RobertaConfig(max_position_embeddings=514, pad_token_id=1))


def test_positions_beyond_a_multiple_of_the_padding_are_not_counted() -> None:
    with pytest.raises(ConfigError, match="set it to 96 or less"):
        check_length(100, GPT2Config(n_positions=100))


def test_a_model_without_a_limit_takes_any_length() -> None:
    check_length(100_000, T5Config())


# without the hub

OFFLINE = {"model.name": "offline:gpt2-tiny", "phase.0.lr": 6e-3}


def test_an_unreachable_hub_is_reported_in_one_line_and_the_run_changed() -> None:
    lines: list[str] = []
    models: list[object] = []

    def away(*model: object) -> bool:
        models.append(model)
        return False

    given = config({"lr": 2e-4}, model={"name": "gpt2", "revision": "main"}, offline=OFFLINE)
    found = apply_offline_fallback(given, lines.append, away)
    assert models == [("gpt2", "main")]
    assert found == loader.apply_offline(given)
    assert lines == [
        "the model hub cannot be reached; using model.name = offline:gpt2-tiny,"
        " phase.0.lr = 0.006 from [offline]"
    ]


@pytest.mark.parametrize(
    ("name", "offline", "here"),
    [("gpt2", OFFLINE, True), ("gpt2", {}, False), ("offline:gpt2-micro", OFFLINE, False)],
)
def test_nothing_is_changed_where_the_hub_answers_or_is_not_needed(
    name: str, offline: dict[str, Any], here: bool
) -> None:
    lines: list[str] = []
    given = config(model={"name": name}, offline=offline)
    assert apply_offline_fallback(given, lines.append, lambda *_: here) == given
    assert lines == []


def test_a_model_directory_needs_no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gpt2").mkdir()
    monkeypatch.chdir(tmp_path)
    given = config(model={"name": "gpt2"}, offline=OFFLINE)
    assert apply_offline_fallback(given, quiet, lambda *_: False) == given


# what can travel


def tensors(count: int, *shape: int) -> Tensors:
    """Return tensors that take no memory."""
    return {f"t{i:05}": np.broadcast_to(np.float32(0), shape) for i in range(count)}


def test_an_adapter_of_too_many_tensors_is_refused_by_name() -> None:
    plan = config(model={"name": "owner/deep"})
    check_update(plan, tensors(8192, 1))
    with pytest.raises(ModelError, match="8193 tensors is over the limit") as caught:
        check_update(plan, tensors(8193, 1))
    assert "model.lora.targets" in caught.value.remedy


@pytest.mark.parametrize(("codec", "fits"), [("fp32", 255), ("int4", 1800)])
def test_an_update_that_no_queue_can_hold_is_refused_with_the_size_that_it_needs(
    codec: str, fits: int
) -> None:
    plan = config(broker={"site_mib": 1}, codec={"update": codec})
    check_update(plan, tensors(fits, 1024))
    with pytest.raises(ConfigError, match=r"MiB.*broker\.site_mib = 1\)") as caught:
        check_update(plan, tensors(fits + 40, 1024))
    assert "set broker.site_mib to 2 or more" in caught.value.remedy


def test_a_run_whose_updates_cannot_travel_is_not_begun(tmp_path: Path, model: BaseModel) -> None:
    plan = config(
        run={"dir": str(tmp_path), "name": "x"},
        model={"name": str(model.path), "lora": {"r": 1024}},
        broker={"site_mib": 1},
        codec={"update": "fp32"},
    )
    with pytest.raises(ConfigError, match="site_mib"):
        create_prepared_run(plan, tmp_path / "cache", lambda *_: None, quiet)
    assert not plan.run.path.exists()


def test_ranks_of_clients_that_are_not_there_are_refused_unless_they_may_join_later() -> None:
    rows = {"client_0": {}, "client_1": {}}
    ranked = config(model={"ranks": {"client_1": 4, "site-a": 8}})
    check_ranks(ranked, rows)
    typo = config(model={"ranks": {"client_7": 4}})
    with pytest.raises(ConfigError, match="client_7, but the run's rows are dealt to 2 other"):
        check_ranks(typo, rows)
    check_ranks(typo, {})  # all rows are at the sites
