"""An export computes what the version computed, wherever it is loaded, and its card can be run."""

from __future__ import annotations

import json
import logging
import sqlite3
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard
from peft import PeftModel
from torch.nn.functional import log_softmax
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertForSequenceClassification,
)

from common.errors import ConfigError, ModelError, RunError
from common.protocol.fields import ObjectiveName
from common.protocol.manifest import make_manifest
from common.protocol.tasks import LoraSpec
from common.run_directory.recorded_run import format_ranges, read_run
from coordinator.storage.journal import Journal
from evaluation.export import card
from learning.models import base, objective_model
from learning.models.encoders import load_whole
from learning.models.export import ExportedModel
from learning.models.export import write_model as write_merged
from learning.objectives.sft import response_nats
from learning.objectives.tokens import IGNORED, TokenisedExample
from learning.prompts.alpaca import format_prompt
from learning.pruning.record import FILE, Pruning, reshape
from learning.training.batches import collate
from tests.support.exported_runs import (
    CPU,
    SECRET,
    Made,
    export,
    logits,
    made,
    quietly,
    run_snippet,
    snippet_of,
    summary,
)
from tests.support.tiny_encoder import encoder, encoder_config, saved
from tests.support.tiny_model import tiny_model, tiny_tokenizer, write_sharded_model

SIGNS = ("bad", "good")
IDS = torch.arange(1, 21)[None]
WORDS = torch.tensor([[2, 4, 5, 7, 3]])
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def causal(tmp_path_factory: pytest.TempPathFactory) -> Made:
    place = tmp_path_factory.mktemp("causal")
    path = place / "base-of-mine"
    tiny_model().save_pretrained(path)
    tiny_tokenizer().save_pretrained(path)
    return made(place, path, "sft")


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Made:
    place = tmp_path_factory.mktemp("classifier")
    path = saved(encoder(), place / "bert")
    return made(place, path, "classification", labels=SIGNS)


def without_pooler(folder: Path) -> Path:
    """Write a checkpoint of BERT like those of masked language models."""
    source = BertForSequenceClassification(encoder_config())
    source.bert.pooler = None
    return saved(source, folder)


def pruned(folder: Path, heads: tuple[tuple[int, ...], ...]) -> Path:
    """Write an encoder of 2 layers with these of its 4 heads."""
    model = encoder(layers=2)
    record = Pruning(
        source="0" * 64, layers=(0, 1), heads=heads, ffn=64, source_layers=4, source_heads=4,
        source_ffn=64,
    )  # fmt: skip
    reshape(model, record)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        for weight in model.parameters():
            weight.data = 0.1 * torch.randn(weight.shape)
    saved(model, folder)
    (folder / FILE).write_bytes(record.encoded())
    return folder


# The same function, wherever it is loaded


def test_an_export_of_a_sharded_base_copies_all_shards_byte_for_byte(tmp_path: Path) -> None:
    source = write_sharded_model(tmp_path / "sharded")
    run = made(tmp_path, source, "sft")
    out = export(run, tmp_path / "out")
    assert len(list((out / "base").glob("model-*.safetensors"))) == 4
    assert make_manifest(out / "base") == make_manifest(source)
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(out / "base"), out)
    assert torch.allclose(logits(model, IDS), run.logits(IDS), atol=TOLERANCE)


def test_the_trained_version_is_no_longer_the_base(causal: Made, classifier: Made) -> None:
    plain = AutoModelForCausalLM.from_pretrained(causal.base)
    assert (causal.logits(IDS) - logits(plain, IDS)).abs().max() > 0.1
    untrained = objective_model.load_for_objective(
        "classification", classifier.base, SIGNS, CPU
    ).model
    assert (classifier.logits(WORDS) - logits(untrained, WORDS)).abs().max() > 0.1


def test_an_exported_adapter_computes_what_was_trained(causal: Made, tmp_path: Path) -> None:
    out = export(causal, tmp_path / "out")
    plain = AutoModelForCausalLM.from_pretrained(out / "base")
    found = PeftModel.from_pretrained(plain, str(out))
    assert torch.allclose(logits(found, IDS), causal.logits(IDS), atol=TOLERANCE)


@pytest.mark.parametrize("merge", [False, True])
def test_others_may_read_an_export(causal: Made, tmp_path: Path, merge: bool) -> None:
    out = export(causal, tmp_path / "out", merge=merge)
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in (out, *out.rglob("*")))


def test_a_merged_model_computes_what_was_trained(causal: Made, tmp_path: Path) -> None:
    out = export(causal, tmp_path / "out", merge=True)
    found = AutoModelForCausalLM.from_pretrained(out)
    assert torch.allclose(logits(found, IDS), causal.logits(IDS), atol=TOLERANCE)
    assert found.dtype == torch.float32
    assert not (out / "adapter_config.json").exists()


def test_an_exported_classifier_has_its_head_and_its_class_names(
    classifier: Made, tmp_path: Path
) -> None:
    adapter = export(classifier, tmp_path / "adapter")
    merged = export(classifier, tmp_path / "merged", merge=True)
    plain = AutoModelForSequenceClassification.from_pretrained(adapter / "base")
    for found in (
        PeftModel.from_pretrained(plain, str(adapter)),
        AutoModelForSequenceClassification.from_pretrained(merged),
    ):
        assert torch.allclose(logits(found, WORDS), classifier.logits(WORDS), atol=TOLERANCE)
        assert found.config.id2label == {0: "bad", 1: "good"}


def test_a_run_over_all_parameters_gives_the_same_model_with_merge_and_without(
    causal: Made, tmp_path: Path
) -> None:
    full = made(tmp_path, causal.base, "sft", settings=None)
    plain = export(full, tmp_path / "plain")
    merged = export(full, tmp_path / "merged", merge=True)
    found = AutoModelForCausalLM.from_pretrained(plain)
    assert torch.allclose(logits(found, IDS), full.logits(IDS), atol=TOLERANCE)
    names = sorted(path.name for path in plain.iterdir())
    assert names == sorted(path.name for path in merged.iterdir())
    for name in names:
        assert (plain / name).read_bytes() == (merged / name).read_bytes(), name
    assert "nothing to merge" in (plain / "README.md").read_text()


def test_the_base_beside_an_adapter_is_the_base_byte_for_byte(causal: Made, tmp_path: Path) -> None:
    out = export(causal, tmp_path / "out")
    found = base.resolve(str(out / "base"), None, tmp_path, quietly).digest
    assert found == read_run(causal.directory).base.digest
    assert found in (out / "README.md").read_text()


def test_another_version_is_exported_by_its_number(causal: Made, tmp_path: Path) -> None:
    out = export(causal, tmp_path / "out", merge=True, version=0)
    plain = AutoModelForCausalLM.from_pretrained(causal.base)
    found = AutoModelForCausalLM.from_pretrained(out)
    assert torch.allclose(logits(found, IDS), logits(plain, IDS), atol=TOLERANCE)
    assert "No update has been aggregated yet" in (out / "README.md").read_text()


def test_a_merged_model_may_be_stored_in_half_the_bytes(causal: Made, tmp_path: Path) -> None:
    whole = export(causal, tmp_path / "whole", merge=True)
    half = export(causal, tmp_path / "half", merge=True, precision="bfloat16")
    sizes = [(out / "model.safetensors").stat().st_size for out in (whole, half)]
    assert sizes[1] < 0.6 * sizes[0]
    found = AutoModelForCausalLM.from_pretrained(half)
    assert found.dtype == torch.bfloat16
    assert torch.allclose(logits(found, IDS).float(), causal.logits(IDS), atol=0.2)


# Weights from a seed, and pruned heads


def test_a_pooler_from_the_seed_goes_with_the_adapter(tmp_path: Path) -> None:
    run = made(tmp_path, without_pooler(tmp_path / "b"), "classification", labels=SIGNS, kind="hub")
    out = export(run, tmp_path / "out")
    plain = AutoModelForSequenceClassification.from_pretrained(out / "base")
    found = PeftModel.from_pretrained(plain, str(out))
    assert torch.allclose(logits(found, WORDS), run.logits(WORDS), atol=TOLERANCE)
    assert "bert.pooler.dense.weight" in (out / "README.md").read_text()
    assert json.loads((out / "adapter_config.json").read_text())["base_model_name_or_path"] == (
        "./base"
    )
    with pytest.raises(ConfigError, match=r"lacks bert\.pooler\.dense\.weight"):
        export(run, tmp_path / "refused", with_base=False)


def test_a_pruned_encoder_keeps_its_record_and_loads_with_fccl(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = made(tmp_path, pruned(tmp_path / "b", ((0, 2), (1,))), "classification", labels=SIGNS)
    for merge in (False, True):
        out = export(run, tmp_path / f"out-{merge}", merge=merge)
        left = run_snippet(out, monkeypatch)
        assert torch.allclose(logits(left["model"], WORDS), run.logits(WORDS), atol=TOLERANCE)
        assert "transformers' own classes cannot" in (out / "README.md").read_text()
        assert left["answer"] in SIGNS
    assert load_whole(out, CPU).model.config.id2label == {0: "bad", 1: "good"}


def test_a_pruned_encoder_with_all_heads_loads_with_plain_transformers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tuple(range(4))
    run = made(tmp_path, pruned(tmp_path / "b", (whole, whole)), "classification", labels=SIGNS)
    out = export(run, tmp_path / "out", merge=True)
    assert (out / FILE).exists()
    left = run_snippet(out, monkeypatch)
    assert "fccl" not in snippet_of(out)
    assert torch.allclose(logits(left["model"], WORDS), run.logits(WORDS), atol=TOLERANCE)


def test_a_merge_that_would_change_a_shared_weight_is_refused(causal: Made, tmp_path: Path) -> None:
    settings = LoraSpec(r=2, alpha=8, targets=("lm_head",))  # GPT-2's is its embedding, too
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run = made(tmp_path, causal.base, "sft", settings=settings)
        with pytest.raises(ModelError, match="without --merge"):
            export(run, tmp_path / "out", merge=True)
    assert not (tmp_path / "out").exists()


# What the card says, and that it is true


@pytest.mark.parametrize("merge", [False, True])
def test_the_cards_snippet_asks_in_the_alpaca_form(
    causal: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, merge: bool
) -> None:
    out = export(causal, tmp_path / "out", merge=merge)
    left = run_snippet(out, monkeypatch)
    assert torch.allclose(logits(left["model"], IDS), causal.logits(IDS), atol=TOLERANCE)
    tokenizer = left["tokenizer"]
    assert tokenizer.decode(left["ids"][0]) == format_prompt("Name three primary colours.")
    with_input = {"role": "user", "content": "Add.\n\n1 2", "instruction": "Add.", "input": "1 2"}
    text = tokenizer.apply_chat_template([with_input], tokenize=False, add_generation_prompt=True)
    assert text == format_prompt("Add.", "1 2")
    assert "Prompts have the Alpaca form" in (out / "README.md").read_text()
    assert isinstance(left["answer"], str)
    assert left["out"].shape[1] > left["ids"].shape[1]


@pytest.mark.parametrize("merge", [False, True])
def test_the_cards_snippet_names_a_class(
    classifier: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, merge: bool
) -> None:
    left = run_snippet(export(classifier, tmp_path / "out", merge=merge), monkeypatch)
    assert left["answer"] in SIGNS
    assert torch.allclose(logits(left["model"], WORDS), classifier.logits(WORDS), atol=TOLERANCE)


@pytest.mark.parametrize("objective", ["sft", "classification"])
def test_an_adapter_of_a_hub_model_names_it_with_its_revision(
    causal: Made,
    classifier: Made,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    objective: ObjectiveName,
) -> None:
    source = classifier if objective == "classification" else causal
    labels = SIGNS if objective == "classification" else ()
    run = made(tmp_path, source.base, objective, labels=labels, kind="hub")
    out = export(run, tmp_path / "out")
    assert not (out / "base").exists()
    fields = json.loads((out / "adapter_config.json").read_text())
    assert (fields["base_model_name_or_path"], fields["revision"]) == ("owner/tiny", "abc123")
    metadata = ModelCard.load(out / "README.md").data
    assert (metadata.base_model, metadata.library_name) == ("owner/tiny", "peft")
    # The hub is out of reach here: a directory of the model's name takes its place.
    monkeypatch.chdir(out)
    Path("owner").mkdir()
    Path("owner/tiny").symlink_to(run.base)
    left = run_snippet(out, monkeypatch)
    ids = WORDS if objective == "classification" else IDS
    assert torch.allclose(logits(left["model"], ids), run.logits(ids), atol=TOLERANCE)
    if objective == "classification":
        assert left["model"].config.id2label == {0: "bad", 1: "good"}
    else:
        command = "pretrained=owner/tiny,revision=abc123,peft=.,tokenizer=.,dtype=float32"
        assert command in (out / "README.md").read_text()


def test_an_adapter_without_its_base_works_once_the_base_is_put_there(
    classifier: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = made(tmp_path, classifier.base, "classification", labels=("a", "b", "c"))
    out = export(run, tmp_path / "out", with_base=False)
    assert not (out / "base").exists()
    assert "put it into `base/`" in (out / "README.md").read_text()
    (out / "base").symlink_to(run.base)
    left = run_snippet(out, monkeypatch)
    assert torch.allclose(logits(left["model"], WORDS), run.logits(WORDS), atol=TOLERANCE)
    assert left["answer"] in ("a", "b", "c")


def test_the_base_of_a_hub_model_is_put_beside_the_adapter_on_demand(
    causal: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = made(tmp_path, causal.base, "sft", kind="hub")
    out = export(run, tmp_path / "out", with_base=True)
    left = run_snippet(out, monkeypatch)
    assert torch.allclose(logits(left["model"], IDS), run.logits(IDS), atol=TOLERANCE)


def test_a_merged_model_generates_without_a_warning(
    causal: Made, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = export(causal, tmp_path / "out", merge=True)
    library = logging.getLogger("transformers")
    library.addHandler(caplog.handler)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            model = AutoModelForCausalLM.from_pretrained(out)
            tokenizer = AutoTokenizer.from_pretrained(out)
            ids = tokenizer(["Add.", "Add 1 and 2."], padding=True, return_tensors="pt")
            model.generate(**ids, max_new_tokens=4)
    finally:
        library.removeHandler(caplog.handler)
    assert caplog.text == ""
    assert model.generation_config.pad_token_id == tokenizer.pad_token_id == 0


def test_a_harness_that_loads_by_path_measures_the_same_as_fccl(
    causal: Made, tmp_path: Path
) -> None:
    """As lm-eval's `hf` model does it: the log-probability of a continuation of a context."""
    out = export(causal, tmp_path / "out", merge=True)
    model = AutoModelForCausalLM.from_pretrained(out).eval()
    tokenizer = AutoTokenizer.from_pretrained(out)
    context, continuation = "The sum of two and two is", " four, and that is all."
    whole = tokenizer.encode(context + continuation, add_special_tokens=False)
    start = len(tokenizer.encode(context, add_special_tokens=False))
    rows = log_softmax(logits(model, torch.tensor([whole[:-1]]))[0], dim=-1)
    theirs = sum(float(rows[i - 1, whole[i]]) for i in range(start, len(whole)))

    labels = (IGNORED,) * start + tuple(whole[start:])
    with torch.inference_mode():
        ours = -float(
            response_nats(causal.model.eval(), collate([TokenisedExample(tuple(whole), labels, 1)]))
        )
    assert theirs == pytest.approx(ours, abs=TOLERANCE)
    text = (out / "README.md").read_text()
    assert "lm_eval --model hf --model_args pretrained=.,dtype=float32 " in text


def test_the_card_says_what_was_trained_and_how_far(causal: Made, tmp_path: Path) -> None:
    out = export(causal, tmp_path / "out")
    text = (out / "README.md").read_text()
    assert "Version 2 of 3" in text
    assert "| 42 | instructions with answers | `owner/rows` |" in text
    assert "2 simulated clients with rows that the coordinator dealt" in text
    assert "| 1 | nats per response token | 2 | 3.500 to 2.500 | 5.000 to 3.000 |  |" in text
    assert "no differential privacy" in text
    metadata = ModelCard.load(out / "README.md").data
    assert metadata.base_model is None  # it is on no hub
    assert metadata.datasets == ["owner/rows"]
    assert metadata.license == "unknown"
    assert metadata.tags == ["federated-learning", "fccl", "lora", "sft"]
    assert metadata.pipeline_tag == "text-generation"


@pytest.mark.parametrize("merge", [False, True])
@pytest.mark.parametrize("kind", ["causal", "classifier"])
def test_an_export_names_no_client_and_no_path_of_this_machine(
    causal: Made, classifier: Made, tmp_path: Path, kind: str, merge: bool
) -> None:
    of = causal if kind == "causal" else classifier
    out = export(of, tmp_path / "out", merge=merge)
    for path in out.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            for word in (SECRET, str(of.base), str(of.directory), str(tmp_path), str(Path.home())):
                assert word.encode() not in content, (path.name, word)


@pytest.mark.parametrize(
    ("source", "named"),
    [
        ("owner/rows", ("owner/rows",)),
        ("owner/rows@main:config/train", ("owner/rows",)),
        ("data/rows.jsonl", ()),
        ("/home/someone/rows", ()),
        ("../rows", ()),
        ("synthetic", ()),
    ],
)
def test_only_hub_data_sets_are_named(
    causal: Made, tmp_path: Path, source: str, named: tuple[str, ...]
) -> None:
    run = read_run(made(tmp_path, causal.base, "sft", sft=source).directory)
    assert card.list_hub_data_sets(run) == named


def test_the_card_has_the_evaluation_of_this_version_and_no_text_of_it(
    causal: Made, tmp_path: Path
) -> None:
    run = made(tmp_path, causal.base, "sft")
    report: dict[str, Any] = {
        "version": 2,
        "base": {"perplexity": 80.25, SECRET: 1.0},
        "federated": {"perplexity": 12.5, SECRET: 2.0},
        "samples": [{"instruction": SECRET}],
    }
    (run.directory / "report").mkdir()
    file = run.directory / "report" / "report.json"
    file.write_text(json.dumps(report))
    text = (export(run, tmp_path / "a") / "README.md").read_text()
    assert "|  | perplexity | 80.25 | 12.5 |" in text
    assert SECRET not in text

    # By kind of rows, where the report has that: the base first, the version last.
    heldout = [{"accuracy": 0.5, "rows": 8}, {"accuracy": 0.75, "rows": 8}]
    va = {"heldout": heldout, "clients": {SECRET: heldout}, "reference": 1, "beta": 0.1}
    kinds = {"va": va, SECRET: 3}
    file.write_text(json.dumps(report | {"kinds": kinds}))
    text = (export(run, tmp_path / "kinds") / "README.md").read_text()
    assert "| preference pairs | accuracy | 0.5 | 0.75 |" in text
    assert "Rewards are β = 0.1 times the log-probability minus that of version 1" in text
    assert "perplexity" not in text and SECRET not in text

    file.write_text(json.dumps(report | {"version": 1}))
    assert "perplexity" not in (export(run, tmp_path / "b") / "README.md").read_text()
    for damaged in ("{", "[]", '{"version": 2, "base": 3, "kinds": [1]}', '{"versions": [1]}'):
        file.write_text(damaged)
        export(run, tmp_path / f"damaged-{len(damaged)}")


# Reading a run that another process owns


def state(directory: Path) -> dict[str, bytes]:
    files = (path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): path.read_bytes() for path in files}


def test_an_export_leaves_the_run_as_it_was(causal: Made, tmp_path: Path) -> None:
    before = state(causal.directory)
    export(causal, tmp_path / "out", merge=True)
    assert state(causal.directory) == before


def test_a_run_is_read_while_its_coordinator_writes(causal: Made, tmp_path: Path) -> None:
    run = made(tmp_path, causal.base, "sft")
    journal = Journal.open(run.directory / "run.db")
    epoch = journal.take_over()
    journal.put_version(summary(3, "3" * 64, 1))  # so far in the write-ahead log alone
    assert read_run(run.directory).choose_version(None) == 2  # 3 is recorded, but has no directory
    (run.directory / "versions" / "000003").mkdir()
    found = read_run(run.directory)
    assert found.versions_on_disk() == (0, 1, 2, 3)
    journal.check_epoch()  # nobody has taken over since
    assert journal.rows("SELECT value FROM epoch") == [(epoch,)]
    journal.close()


def test_a_run_that_was_moved_and_renamed_is_read(causal: Made, tmp_path: Path) -> None:
    run = made(tmp_path, causal.base, "sft")
    moved = tmp_path / "else where" / "small.old#1?"
    moved.parent.mkdir()
    run.directory.rename(moved)
    assert read_run(moved).choose_version(None) == 2


def test_a_missing_version_is_refused_with_a_list_of_those_on_the_disk(
    causal: Made, tmp_path: Path
) -> None:
    run = made(tmp_path, causal.base, "sft")
    (run.directory / "versions" / "000001").rename(tmp_path / "gone")
    found = read_run(run.directory)
    for version in (1, 7):
        with pytest.raises(RunError, match=f"version {version} .*choose one of 0, 2$"):
            found.choose_version(version)


def test_consecutive_numbers_are_written_as_ranges() -> None:
    assert format_ranges([0, 4, 7, 8, 9, 11, 12]) == "0, 4, 7 to 9, 11, 12"


def test_a_version_that_was_changed_on_the_disk_is_refused(causal: Made, tmp_path: Path) -> None:
    run = made(tmp_path, causal.base, "sft")
    versions = run.directory / "versions"
    for name in ("000000", "000002"):
        (versions / name / "adapter_model.safetensors").rename(tmp_path / name)
    (tmp_path / "000000").rename(versions / "000002" / "adapter_model.safetensors")
    with pytest.raises(RunError, match="not have the content that the journal says"):
        read_run(run.directory).tensors(2)
    with pytest.raises(RunError, match="000000"):
        read_run(run.directory).tensors(0)


def test_a_journal_of_another_release_is_refused_in_one_line(causal: Made, tmp_path: Path) -> None:
    run = made(tmp_path, causal.base, "sft")
    db = sqlite3.connect(run.directory / "run.db")
    db.execute("DELETE FROM meta WHERE key = 'sources'")
    db.commit()
    db.close()
    with pytest.raises(RunError, match=r"release.*lacks sources") as error:
        read_run(run.directory)
    assert "\n" not in str(error.value)


def test_an_adapter_of_another_shape_is_refused(causal: Made, tmp_path: Path) -> None:
    run = read_run(causal.directory)
    trained = ExportedModel(
        "sft", run.base, causal.base, (), LoraSpec(r=3), run.adapter_config, run.tensors(2)
    )
    with pytest.raises(ModelError, match="shape"):
        write_merged(trained, tmp_path, "float32")
