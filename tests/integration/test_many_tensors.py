"""A whole federation of an adapter with as many tensors as that of a Llama with 80 layers."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from cli.demo.embedded import EmbeddedFederation, FederationCallbacks
from common.config.config import FederationConfig
from common.config.loader import parse
from common.protocol.codec import payload_bytes
from common.protocol.layout import TensorLayout
from common.run_directory.recorded_run import read_run
from coordinator.samples_source import SamplesSource
from coordinator.storage.run import open_run
from learning.training.device import Compute
from preparation.run import create_prepared_run
from tests.support.tiny_model import tiny_tokenizer
from worker.incremental.serving import served_run

LAYERS, MODULES = 80, 7


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FederationConfig:
    monkeypatch.setenv("FCCL_CACHE", str(tmp_path / "cache"))
    tokenizer = tiny_tokenizer()
    settings = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=24, num_hidden_layers=LAYERS,
        num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=256,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    LlamaForCausalLM(settings).save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    return parse(
        {
            "run": {"name": "deep", "dir": str(tmp_path)},
            "model": {
                "name": str(tmp_path / "base"),
                "max_length": 64,
                "lora": {"r": 2, "alpha": 4, "targets": "all-linear"},
            },
            "data": {"rows": 24, "clients": 2},
            "phase": [{"versions": 2, "local_steps": 1, "batch_size": 2}],
            "schedule": {"concurrency": 2, "buffer_size": 1},
            "codec": {"update": "int8"},
            "samples": {"prompts": 0},
        },
        "test",
    )


@pytest.mark.slow
def test_an_adapter_of_1120_tensors_federates(config: FederationConfig, tmp_path: Path) -> None:
    create_prepared_run(config, tmp_path / "cache", lambda *_: None, lambda _: None)
    run = open_run(config, lambda _: tmp_path / "base")
    federation = EmbeddedFederation(
        run,
        Compute(torch.device("cpu"), threads=1, autocast=False),
        config.incremental,
        SamplesSource(),
        FederationCallbacks(on_event=lambda event: None),
    )
    federation.start()
    outcome = federation.join()
    assert (outcome.complete, outcome.version) == (True, 2)
    recorded = read_run(run.directory)
    begun, ended = recorded.tensors(0), recorded.tensors(2)
    layout = TensorLayout.of(ended)
    assert len(layout) == 2 * MODULES * LAYERS == 1120
    assert recorded.layout == layout.digest == TensorLayout.of(begun).digest
    moved = [name for name in ended if not np.array_equal(begun[name], ended[name])]
    assert len([name for name in moved if "lora_B" in name]) == MODULES * LAYERS
    with closing(sqlite3.connect(run.directory / "run.db")) as db:
        sizes = [nbytes for (nbytes,) in db.execute("SELECT nbytes FROM accepted")]
    assert sizes and all(0 < size - payload_bytes("int8", layout) < 1000 for size in sizes)
    served = served_run.load_model(federation.worker_state, run.run_id)
    assert served is not None and TensorLayout.of(served[1]) == layout
