"""`fccl export` of a real little run, as its users meet it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from tests.support.processes import Command, Commands, commands

SMALL = """\
[model]
name = "offline:gpt2-micro"
max_length = 128
[model.lora]
r = 4
alpha = 8
[data]
rows = 60
clients = 2
[[phase]]
versions = 2
local_steps = 2
batch_size = 4
[schedule]
concurrency = 2
buffer_size = 2
"""


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the commands run."""
    return tmp_path_factory.mktemp("exports")


@pytest.fixture(scope="module")
def place(directory: Path, model_cache: Path) -> Iterator[Commands]:
    """Commands beside a finished run, `runs/x`."""
    (directory / "f.toml").write_text(SMALL)
    with commands(directory, {"FCCL_CACHE": str(model_cache), "HF_HUB_OFFLINE": "1"}) as place:
        run = place.fork("demo", "--plain", "--config", "f.toml", "--out", "runs/x")
        assert run.end() == 0, run.err
        yield place


def exported(place: Commands, *args: str) -> Command:
    command = place.fork("export", "--plain", *args)
    assert command.end() == 0, command.err
    return command


def refused(place: Commands, code: int, *args: str) -> str:
    """The one line of an export that does not happen."""
    command = place.fork("export", *args)
    assert command.end() == code, f"{command.out}\n{command.err}"
    assert len(command.err.splitlines()) == 1, command.err
    return command.err


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.inference_mode():
        out: torch.Tensor = model.eval()(input_ids=torch.arange(1, 40)[None]).logits
        return out


def test_adapter_and_merged_model_of_a_finished_run_are_the_version_that_it_committed(
    place: Commands, directory: Path
) -> None:
    line = exported(place, "runs/x", "adapter").out
    assert "version 2 of runs/x is in adapter: a PEFT adapter; its base model is in base/" in line
    exported(place, "runs/x", "merged", "--merge")
    base = AutoModelForCausalLM.from_pretrained(directory / "adapter" / "base")
    untrained = logits(base)
    versions = directory / "runs" / "x" / "versions"
    committed = logits(PeftModel.from_pretrained(base, str(versions / "000002")))
    assert (committed - untrained).abs().max() > 1e-3
    again = AutoModelForCausalLM.from_pretrained(directory / "adapter" / "base")
    adapter = PeftModel.from_pretrained(again, str(directory / "adapter"))
    merged = AutoModelForCausalLM.from_pretrained(directory / "merged")
    assert torch.allclose(logits(adapter), committed, atol=1e-4)
    assert torch.allclose(logits(merged), committed, atol=1e-4)


def test_the_card_of_a_real_run_has_its_losses_and_its_snippet_runs(
    place: Commands, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported(place, "runs/x", "carded")
    text = (directory / "carded" / "README.md").read_text()
    assert "2 simulated clients" in text
    (found,) = re.findall(r"^\| 1 \| nats .*? \| 4 \| ([\d.]+) to ([\d.]+)", text, re.MULTILINE)
    lines = (directory / "runs/x/progress.jsonl").read_text().splitlines()
    losses = [json.loads(line)["train_loss"] for line in lines]
    assert [float(each) for each in found] == pytest.approx(losses[1:], abs=1e-3)
    assert math.isfinite(losses[-1])
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    monkeypatch.chdir(directory / "carded")
    left: dict[str, Any] = {}
    exec(code, left)
    assert isinstance(left["answer"], str)


def test_an_older_version_is_exported_by_its_number(place: Commands) -> None:
    line = exported(place, "runs/x", "older", "--version", "1", "--merge", "--dtype", "bfloat16")
    assert "version 1 of runs/x is in older: a whole model in bfloat16" in line.out


def test_what_cannot_be_exported_is_told_in_one_line(place: Commands, directory: Path) -> None:
    (directory / "taken").mkdir()
    (directory / "taken" / "file").touch()
    (directory / "file").touch()
    (directory / "empty").mkdir()
    assert "taken exists and is not empty" in refused(place, 2, "runs/x", "taken")
    assert "file exists" in refused(place, 2, "runs/x", "file")
    assert "name a writable place" in refused(place, 7, "runs/x", "file/out")
    gone = refused(place, 7, "runs/x", "out", "--version", "9")
    assert "version 9" in gone and "choose one of 0 to 2" in gone
    assert "holds no run" in refused(place, 7, "empty", "out")
    assert "--merge" in refused(place, 2, "runs/x", "out", "--dtype", "bfloat16")
    assert "for adapters" in refused(place, 2, "runs/x", "out", "--merge", "--with-base")
    assert "float16" in refused(place, 2, "runs/x", "out", "--merge", "--dtype", "float16")
    assert not (directory / "out").exists()
    assert not list(directory.glob(".part-*"))


def test_an_empty_directory_is_filled(place: Commands, directory: Path) -> None:
    (directory / "made").mkdir()
    exported(place, "runs/x", "made")
    assert (directory / "made" / "adapter_config.json").exists()
