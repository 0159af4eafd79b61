"""Tests of compiled blocks: same results, and no fast path within them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from common.errors import ConfigError
from common.protocol.tasks import LoraSpec
from learning.models import lora
from learning.models.encoders import load_encoder
from learning.training.compilation import check_compiler, compile_blocks, is_compiled
from learning.training.fast_path import fast_path
from tests.support.tiny_encoder import encoder, saved
from tests.support.tiny_model import tiny_model

pytestmark = pytest.mark.slow

EAGER = "aot_eager"  # traces and differentiates as `inductor` does, and needs no compiler


def causal(_: Path) -> nn.Module:
    return tiny_model()


def classifier(folder: Path) -> nn.Module:
    found = load_encoder(saved(encoder(), folder), ("0", "1"), torch.device("cpu"), seed=0)
    return found.model


@pytest.mark.parametrize("make", [causal, classifier])
def test_compiled_blocks_give_the_same_output_and_keep_every_name(
    make: Callable[[Path], Any], tmp_path: Path
) -> None:
    model = lora.attach(make(tmp_path), LoraSpec(r=2, alpha=4, dropout=0.0), seed=0).eval()
    ids = torch.arange(1, 33).reshape(2, 16) % 20
    plain, names = [model(input_ids=ids[:, :n]).logits for n in (16, 8)], list(model.state_dict())
    assert not is_compiled(model)
    assert compile_blocks(model, EAGER) == model.config.num_hidden_layers
    assert is_compiled(model)
    with fast_path(model, autocast=False):
        found = [model(input_ids=ids[:, :n]).logits for n in (16, 8)]
    torch.testing.assert_close(found, plain, atol=1e-5, rtol=1e-4)
    found[0].sum().backward()
    assert list(model.state_dict()) == names


def test_compiling_without_a_compiler_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ConfigError, match="no-such-compiler"):
        check_compiler("cpu")
    check_compiler("cuda")
