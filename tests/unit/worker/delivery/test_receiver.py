"""Sites keep the last and the best version of a finished run, whatever its coordinator sends."""

from __future__ import annotations

import json
import resource
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from cli.models.export import command as export_command
from common.errors import FcclError, RunError, StoreError, WireError
from common.model_cache import link_installed
from common.protocol.delivery import (
    AdapterModules,
    DeliveredAdapter,
    DeliveredCard,
    DeliveredVersion,
    Delivery,
    pack_delivery,
    unpack_delivery,
)
from common.run_directory.recorded_run import read_run
from common.store.store import Store
from learning.models import base
from tests.support.delivered_runs import CARD, empty_store, evaluate, publish, receive
from tests.support.exported_runs import Made, logits, made, quietly
from tests.support.tiny_encoder import encoder, saved
from tests.support.tiny_model import tiny_model, tiny_tokenizer
from worker.delivery.delivered import delivered_folder, newest_delivered

IDS = torch.arange(1, 21)[None]


@pytest.fixture
def store() -> Store:
    return empty_store()


@pytest.fixture
def run(tmp_path: Path) -> Made:
    path = tmp_path / "base-of-mine"
    tiny_model().save_pretrained(path)
    tiny_tokenizer().save_pretrained(path)
    return made(tmp_path, path, "sft")


@pytest.fixture
def cache(run: Made, tmp_path: Path) -> Path:
    """Cache of a site that has trained, so that it has the base model."""
    return with_base(run, tmp_path / "site-cache")


def with_base(run: Made, cache: Path) -> Path:
    digest = base.resolve(str(run.base), None, cache, quietly).digest
    link_installed(run.base, digest, cache)
    return cache


def folder_of(run: Made, state: Path) -> Path:
    return delivered_folder(state, read_run(run.directory).run_id)


def test_a_site_gets_the_last_and_the_best_version_with_their_cards(
    run: Made, cache: Path, store: Store, tmp_path: Path
) -> None:
    evaluate(run, {0: 5.0, 1: 3.0, 2: 4.0})
    events = publish(run, store)
    assert [event.level for event in events] == ["info"]
    delivered = receive(run, store, tmp_path / "state", cache)
    assert delivered is not None and (delivered.final, delivered.best) == (2, 1)
    folder = folder_of(run, tmp_path / "state")
    assert (folder / "final/README.md").read_text() == CARD.format(2)
    assert (folder / "best/README.md").read_text() == CARD.format(1)
    model = AutoModelForCausalLM.from_pretrained(folder / "final/base")
    adapted = PeftModel.from_pretrained(model, folder / "final")
    assert torch.allclose(logits(adapted, IDS), run.logits(IDS), atol=1e-4)
    assert AutoTokenizer.from_pretrained(folder / "final").padding_side == "left"


def test_a_run_without_evaluations_delivers_the_last_version_only(
    run: Made, cache: Path, store: Store, tmp_path: Path
) -> None:
    publish(run, store)
    delivered = receive(run, store, tmp_path / "state", cache)
    assert delivered is not None and (delivered.final, delivered.best) == (2, None)
    assert not (folder_of(run, tmp_path / "state") / "best").exists()


def test_a_last_version_that_is_the_best_one_is_kept_once(
    run: Made, cache: Path, store: Store, tmp_path: Path
) -> None:
    evaluate(run, {1: 4.0, 2: 3.0})
    publish(run, store)
    receive(run, store, tmp_path / "state", cache)
    folder = folder_of(run, tmp_path / "state")
    assert (folder / "best").resolve() == (folder / "final").resolve()


def test_a_delivery_does_without_cards_that_cannot_be_made(
    run: Made, cache: Path, store: Store, tmp_path: Path
) -> None:
    assert [event.level for event in publish(run, store, cards=False)] == ["warning", "info"]
    receive(run, store, tmp_path / "state", cache)
    folder = folder_of(run, tmp_path / "state")
    assert (folder / "final/adapter_model.safetensors").exists()
    assert not (folder / "final/README.md").exists()


def test_a_machine_without_the_base_model_gets_the_adapter(
    run: Made, store: Store, tmp_path: Path
) -> None:
    publish(run, store)
    receive(run, store, tmp_path / "state", tmp_path / "no-cache")
    final = folder_of(run, tmp_path / "state") / "final"
    assert json.loads((final / "adapter_config.json").read_text())["r"] == 2
    assert {path.name for path in final.iterdir()} == {
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
    }


def test_a_classifier_is_delivered_with_its_head(store: Store, tmp_path: Path) -> None:
    path = saved(encoder(), tmp_path / "bert")
    run = made(tmp_path, path, "classification", labels=("bad", "good"))
    publish(run, store)
    receive(run, store, tmp_path / "state", with_base(run, tmp_path / "site-cache"))
    final = folder_of(run, tmp_path / "state") / "final"
    model = AutoModelForSequenceClassification.from_pretrained(final / "base")
    adapted = PeftModel.from_pretrained(model, final)
    words = torch.tensor([[2, 4, 5, 7, 3]])
    assert torch.allclose(logits(adapted, words), run.logits(words), atol=1e-4)


def test_a_run_that_trained_all_parameters_delivers_a_whole_model(
    store: Store, tmp_path: Path
) -> None:
    path = tmp_path / "whole"
    tiny_model().save_pretrained(path)
    tiny_tokenizer().save_pretrained(path)
    run = made(tmp_path, path, "sft", settings=None)
    publish(run, store)
    receive(run, store, tmp_path / "state", with_base(run, tmp_path / "site-cache"))
    model = AutoModelForCausalLM.from_pretrained(folder_of(run, tmp_path / "state") / "final")
    assert torch.allclose(logits(model, IDS), run.logits(IDS), atol=1e-4)


def test_a_second_worker_of_the_site_finds_what_the_first_one_fetched(
    run: Made, cache: Path, store: Store, tmp_path: Path
) -> None:
    publish(run, store)
    found: list[object] = []

    def fetch() -> None:
        found.append(receive(run, store, tmp_path / "state", cache))

    workers = [threading.Thread(target=fetch) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(found) == 3 and len(set(map(repr, found))) == 1
    assert receive(run, empty_store(), tmp_path / "state", cache) == found[0]


def test_what_an_interrupted_delivery_left_is_replaced(
    run: Made, cache: Path, store: Store, tmp_path: Path
) -> None:
    publish(run, store)
    folder = folder_of(run, tmp_path / "state")
    (folder / "final").mkdir(parents=True)
    (folder / "final" / "adapter_model.safetensors").write_bytes(b"half of it")
    (folder / ".part-x").mkdir()
    receive(run, store, tmp_path / "state", cache)
    assert sorted(path.name for path in folder.iterdir()) == ["delivered.json", "final"]
    assert (folder / "final/adapter_model.safetensors").stat().st_size > 1000


def test_without_a_delivery_there_is_nothing_to_keep(
    run: Made, cache: Path, store: Store, tmp_path: Path
) -> None:
    assert receive(run, store, tmp_path / "state", cache) is None
    assert not (tmp_path / "state").exists()


def test_a_version_that_has_expired_is_an_error_with_a_remedy(
    run: Made, cache: Path, store: Store, tmp_path: Path
) -> None:
    publish(run, store)
    adapter = read_run(run.directory).versions[-1]
    store.drop_blob(read_run(run.directory).run_id, adapter.sha256, adapter.nbytes)
    with pytest.raises(StoreError, match=r"version 2 of run .* is not in the store any more"):
        receive(run, store, tmp_path / "state", cache)


def test_a_full_disk_is_one_line_and_the_next_start_fetches_again(
    run: Made, cache: Path, store: Store, tmp_path: Path
) -> None:
    publish(run, store)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        error = refused(run, store, tmp_path / "state", cache)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert isinstance(error, RunError) and "make room" in error.remedy
    assert receive(run, store, tmp_path / "state", cache) is not None


def test_the_delivered_version_is_exported_with_its_base(
    run: Made, cache: Path, store: Store, tmp_path: Path
) -> None:
    evaluate(run, {1: 3.0, 2: 4.0})
    publish(run, store)
    state = tmp_path / "state"
    receive(run, store, state, cache)
    out = tmp_path / "out"
    words = ["--site", "hospital-a", "--state", str(state), str(out), "--plain"]
    result = CliRunner().invoke(export_command, words, catch_exceptions=False)
    assert result.exit_code == 0 and "version 2 of run small-" in result.output
    assert not (out / "base").is_symlink()
    model = AutoModelForCausalLM.from_pretrained(out / "base")
    assert torch.allclose(
        logits(PeftModel.from_pretrained(model, out), IDS), run.logits(IDS), atol=1e-4
    )


def test_an_export_at_a_site_without_a_delivery_says_what_to_do(tmp_path: Path) -> None:
    words = ["--site", "hospital-a", "--state", str(tmp_path), str(tmp_path / "out")]
    result = CliRunner().invoke(export_command, words)
    assert isinstance(result.exception, RunError)
    assert "fccl worker --site hospital-a" in result.exception.remedy


# What the coordinator sends is not trusted.

SHA = "0" * 64
ADAPTER = DeliveredAdapter(sha256=SHA, nbytes=10)


def hostile(made: Made, store: Store, **changes: Any) -> tuple[Delivery, AdapterModules]:
    """Publish a delivery, change its record, publish that, and return what was there first."""
    publish(made, store)
    run_id = read_run(made.directory).run_id
    frame = store.get_delivery(run_id)
    assert frame is not None
    delivery, modules = unpack_delivery(frame, run_id)
    changed = pack_delivery(delivery.model_copy(update=changes), modules)
    store.set_delivery(run_id, changed)
    return delivery, modules


def refused(run: Made, store: Store, state: Path, cache: Path) -> FcclError:
    with pytest.raises(FcclError) as caught:
        receive(run, store, state, cache)
    assert "\n" not in str(caught.value)
    assert newest_delivered(state) is None
    return caught.value


def test_a_delivery_of_another_run_is_refused(
    run: Made, cache: Path, store: Store, tmp_path: Path
) -> None:
    hostile(run, store, run="other-20260101-000000-0000")
    assert isinstance(refused(run, store, tmp_path / "state", cache), WireError)


def test_an_adapter_of_another_version_is_refused(
    run: Made, cache: Path, store: Store, tmp_path: Path
) -> None:
    delivery, _ = hostile(run, store)
    hostile(run, store, final=delivery.final.model_copy(update={"version": 7}))
    assert "of version 2, not 7" in str(refused(run, store, tmp_path / "state", cache))


def test_a_card_that_is_no_text_is_refused_and_escapes_are_removed(
    run: Made, cache: Path, store: Store, tmp_path: Path
) -> None:
    delivery, _ = hostile(run, store)
    run_id = read_run(run.directory).run_id

    def with_card(text: bytes) -> None:
        store.put_blob(run_id, text)
        card = DeliveredCard(sha256=base.codec.digest(text), nbytes=len(text))
        hostile(run, store, final=delivery.final.model_copy(update={"card": card}))

    with_card(b"\xff\xfe")
    assert "UTF-8" in str(refused(run, store, tmp_path / "state", cache))
    with_card(b"# A \x1b]0;title\x07 card\n")
    receive(run, store, tmp_path / "state", cache)
    text = (folder_of(run, tmp_path / "state") / "final/README.md").read_text()
    assert text == "# A  ]0;title  card\n"


@pytest.mark.parametrize(
    "modules",
    [
        b'{"target_modules": "(a+)+$"}',
        b'{"target_modules": ["../../etc"]}',
        b'{"auto_mapping": {"parent_library": "os"}}',
        b'{"task_type": "os.system"}',
        b"not JSON",
        b"[" * 3_000_000,
    ],
)
def test_modules_that_are_not_names_are_refused(
    run: Made, cache: Path, store: Store, tmp_path: Path, modules: bytes
) -> None:
    delivery, good = hostile(run, store)
    frame = pack_delivery(delivery, good)
    header = frame[: len(frame) - len(good.model_dump_json())]
    store.set_delivery(delivery.run, header + modules)
    assert isinstance(refused(run, store, tmp_path / "state", cache), WireError)


@pytest.mark.parametrize("nbytes", [0, 5 << 30])
def test_a_delivered_adapter_has_a_limited_size(nbytes: int) -> None:
    with pytest.raises(ValueError, match="nbytes"):
        DeliveredVersion(version=1, adapter=DeliveredAdapter(sha256=SHA, nbytes=nbytes))
