"""Tests of loading: the process is unchanged afterwards, also when several threads load at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from learning.models.loader import load
from tests.support.tiny_model import tiny_model, tiny_tokenizer


def test_models_keep_their_tied_weights_when_threads_load_at_once(tmp_path: Path) -> None:
    tiny_model().save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    with ThreadPoolExecutor(4) as threads:
        loaded = list(threads.map(lambda _: load(tmp_path, torch.device("cpu")).model, range(16)))
    for model in [*loaded, tiny_model()]:
        assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
