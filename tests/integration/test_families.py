"""Models of every family go through a whole federation and come back as plain PEFT models."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from learning.models.loader import quiet
from tests.support.families import FORMS, saved_family
from tests.support.processes import Commands, commands

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


def run_to_the_end(place: Commands, directory: Path) -> None:
    (directory / "f.toml").write_text(PLAN)
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
    assert (logits(merged, ids) - committed).abs().max() <= TOLERANCE * committed.abs().max()


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMS)
def test_every_family_is_trained_and_exported_as_what_the_run_committed(
    tmp_path: Path, name: str
) -> None:
    saved_family(name, tmp_path / "model")
    with commands(
        tmp_path, {"FCCL_CACHE": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"}
    ) as place:
        run_to_the_end(place, tmp_path)
    check_exports(tmp_path)
