"""Models of every family go through a whole federation and come back as plain PEFT models."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from learning.models.loader import quiet
from tests.support.families import FORMS, family_model, family_tokenizer, saved_family
from tests.support.processes import commands

PLAN = """\
[model]
name = "model"
max_length = 256
[model.lora]
r = 4
alpha = 8
[data]
rows = 40
clients = 2
[[phase]]
versions = 2
local_steps = 2
batch_size = 4
lr = 1e-2
[schedule]
concurrency = 2
buffer_size = 2
[samples]
prompts = 0
"""
TOLERANCE = 1e-5


def logits(model: torch.nn.Module, ids: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        out: torch.Tensor = model.eval()(input_ids=ids).logits
        return out


def environment(directory: Path) -> dict[str, str]:
    return {"FCCL_CACHE": str(directory / "cache"), "HF_HUB_OFFLINE": "1"}


def run_to_the_end(directory: Path) -> None:
    """Run a federation on the model in a directory, and export its last version in both forms."""
    (directory / "f.toml").write_text(PLAN)
    with commands(directory, environment(directory)) as place:
        for words in (
            ("demo", "--plain", "--config", "f.toml", "--out", "run"),
            ("export", "--plain", "run", "adapter"),
            ("export", "--plain", "run", "merged", "--merge"),
        ):
            command = place.fork(*words)
            assert command.end() == 0, f"{command.out}\n{command.err}"


def check_exports(directory: Path) -> None:
    """Check adapter and merged model against the run's last version, by plain PEFT."""
    final = directory / "run" / "versions" / "000002"
    ours, theirs = (
        load_file(d / "adapter_model.safetensors") for d in (final, directory / "adapter")
    )
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
    ids = torch.randint(0, 300, (2, 40), generator=torch.Generator().manual_seed(0))
    with quiet():
        base = [
            AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
            for path in (directory / "model", directory / "model", directory / "adapter" / "base")
        ]
        merged = AutoModelForCausalLM.from_pretrained(directory / "merged")
        tokenizer = AutoTokenizer.from_pretrained(directory / "merged")
    assert len(tokenizer) <= merged.get_input_embeddings().weight.shape[0]
    untrained = logits(base[0], ids)
    committed = logits(PeftModel.from_pretrained(base[1], str(final)), ids)
    adapted = logits(PeftModel.from_pretrained(base[2], str(directory / "adapter")), ids)
    assert (committed - untrained).abs().max() > 1e-3
    assert (adapted - committed).abs().max() == 0.0
    assert (logits(merged, ids) - committed).abs().max() <= TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMS)
def test_every_family_is_trained_and_exported_as_what_the_run_committed(
    tmp_path: Path, name: str
) -> None:
    saved_family(name, tmp_path / "model")
    run_to_the_end(tmp_path)
    check_exports(tmp_path)


@pytest.mark.slow
def test_shards_in_bfloat16_with_added_tokens_are_trained_and_exported(tmp_path: Path) -> None:
    tokenizer = family_tokenizer("smollm2")
    model = family_model("smollm2", tokenizer)
    tokenizer.add_tokens(["zorblax", "<|extra|>"])
    model.resize_token_embeddings(len(tokenizer))
    torch.nn.Module.to(model, torch.bfloat16)
    model.save_pretrained(tmp_path / "model", max_shard_size="20KB")
    tokenizer.save_pretrained(tmp_path / "model")
    assert len(list((tmp_path / "model").glob("model-*.safetensors"))) > 1
    run_to_the_end(tmp_path)
    check_exports(tmp_path)


@pytest.mark.slow
def test_a_run_continues_from_the_adapter_that_an_earlier_one_exported(tmp_path: Path) -> None:
    saved_family("smollm2", tmp_path / "model")
    run_to_the_end(tmp_path)
    warm = PLAN.replace('name = "model"', 'name = "model"\nadapter = "adapter"')
    (tmp_path / "warm.toml").write_text(warm)
    with commands(tmp_path, environment(tmp_path)) as place:
        command = place.fork("demo", "--plain", "--config", "warm.toml", "--out", "second")
        assert command.end() == 0, command.err
        assert "version 0 is the adapter in adapter: version 2 of run" in command.out
    reports = [
        json.loads((tmp_path / name / "report" / "report.json").read_text())
        for name in ("run", "second")
    ]
    before, after = (each["kinds"]["sft"]["heldout"] for each in reports)
    assert after[0]["nats_per_token"] == before[-1]["nats_per_token"]
    assert [subject["title"] for subject in reports[1]["subjects"]] == ["start", "version 2"]
