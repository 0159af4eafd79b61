"""`fccl demo --config configs/smollm2.toml`: the real chat model through a whole federation."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from common.run_directory.recorded_run import read_run
from tests.support.paths import ROOT
from tests.support.processes import Commands, commands

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

LIMIT_S = 500.0
SHORT = {
    "FCCL_DATA__ROWS": "16",
    "FCCL_DATA__CLIENTS": "2",
    "FCCL_PHASE__0__VERSIONS": "1",
    "FCCL_PHASE__0__LOCAL_STEPS": "2",
    "FCCL_PHASE__1__VERSIONS": "1",
    "FCCL_PHASE__1__LOCAL_STEPS": "1",
    "FCCL_SAMPLES__PROMPTS": "1",
    "FCCL_SAMPLES__NEW_TOKENS": "12",
}


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the commands run."""
    return tmp_path_factory.mktemp("smollm2")


@pytest.fixture(scope="module")
def place(directory: Path) -> Iterator[Commands]:
    """Commands beside a finished run, `runs/x`."""
    environment = {"FCCL_CACHE": str(directory / "cache"), "HF_HUB_OFFLINE": "1", **SHORT}
    with commands(directory, environment) as place:
        config = str(ROOT / "configs/smollm2.toml")
        run = place.fork("demo", "--plain", "--config", config, "--out", "runs/x")
        assert run.end(LIMIT_S) == 0, run.err
        assert "converting SmolLM2-135M-Instruct, once: 0%" in run.out
        yield place


def test_both_phases_are_trained_with_the_models_own_chat_template(
    place: Commands, directory: Path
) -> None:
    run = read_run(directory / "runs/x")
    assert [version.version for version in run.versions] == [0, 1, 2]
    assert run.prompt is not None
    assert "<|im_start|>" in run.prompt.template
    assert {sample.version for sample in run.samples} >= {0, 2}
    report = json.loads((directory / "runs/x/report/report.json").read_text())
    before, *_, after = report["kinds"]["sft"]["heldout"]
    assert after["nats_per_token"] < before["nats_per_token"]


def test_the_merged_model_answers_and_its_card_names_the_base_and_its_licence(
    place: Commands, directory: Path
) -> None:
    export = place.fork("export", "--plain", "runs/x", "merged", "--merge")
    assert export.end(LIMIT_S) == 0, export.err
    folder = directory / "merged"
    card = (folder / "README.md").read_text()
    assert "SmolLM2-135M-Instruct" in card
    assert "licence Apache-2.0" in card
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    with torch.inference_mode():
        out = model.generate(**prompt, max_new_tokens=20, do_sample=False)
    answer = tokenizer.decode(out[0, prompt["input_ids"].shape[1] :])
    assert "Paris" in answer
    assert answer.endswith("<|im_end|>")
