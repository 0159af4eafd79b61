"""Layers on which an adapter could not be exported or merged are refused before a run begins."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import PeftModel

from common.errors import ModelError
from common.protocol.tasks import LoraSpec
from learning.models.lora import attach, read_adapter, write_adapter
from learning.models.lora_targets import check_targets
from tests.support.families import FORMS, family_model, family_tokenizer

IDS = torch.arange(1, 41)[None]


def check(name: str, *targets: str, **options: Any) -> PeftModel:
    spec = LoraSpec(r=2, alpha=4, targets=targets or "all-linear")
    model = attach(family_model(name, family_tokenizer(name), **options), spec, 0)
    check_targets(model, spec)
    assert isinstance(model, PeftModel)
    return model


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.inference_mode():
        out: torch.Tensor = model.eval()(input_ids=IDS).logits
        return out


@pytest.mark.parametrize("name", FORMS)
def test_all_linear_layers_of_every_family_can_be_adapted(name: str) -> None:
    assert read_adapter(check(name))


@pytest.mark.parametrize("name", ["qwen2", "smollm2", "gemma2", "gemma3"])
@pytest.mark.parametrize("target", ["lm_head", "embed_tokens"])
def test_a_tied_weight_is_refused_with_the_layer_that_shares_it(name: str, target: str) -> None:
    with pytest.raises(ModelError, match=rf"includes .*{target}, ") as caught:
        check(name, "q_proj", target)
    assert f"leave {target} out" in caught.value.remedy


def test_the_tied_embedding_of_gpt2_is_refused() -> None:
    with pytest.raises(ModelError, match=r"transformer\.wte, which shares its weight with lm_head"):
        check("gpt2", "wte")


@pytest.mark.parametrize(("name", "target"), [("llama", "lm_head"), ("llama", "embed_tokens")])
def test_an_untied_head_or_embedding_is_adapted_and_merged(name: str, target: str) -> None:
    model = check(name, target)
    generator = torch.Generator().manual_seed(0)
    write_adapter(
        model,
        {
            n: torch.randn(t.shape, generator=generator).numpy() * 0.1
            for n, t in read_adapter(model).items()
        },
    )
    before = logits(model)
    assert (before - logits(family_model(name, family_tokenizer(name)))).abs().max() > 1e-3
    merged = model.merge_and_unload()
    assert (logits(merged) - before).abs().max() < 1e-5


def test_an_embedding_that_scales_its_output_is_refused() -> None:
    with pytest.raises(ModelError, match="cannot be merged"):
        check("gemma3", "embed_tokens", tie_word_embeddings=False)


def test_a_name_that_matches_nothing_is_refused_beside_one_that_matches() -> None:
    with pytest.raises(
        ModelError, match="names 'q_prj', but the model has no such layer"
    ) as caught:
        check("llama", "q_prj", "v_proj")
    assert "others match: v_proj" in caught.value.what


@pytest.mark.parametrize("targets", [("typo",), ("input_layernorm",), ("mlp",), (".*",)])
def test_targets_that_are_no_linear_layers_are_refused_in_a_line(targets: tuple[str, ...]) -> None:
    with pytest.raises(ModelError, match=r"model\.lora\.targets") as caught:
        check("llama", *targets)
    assert len(str(caught.value).splitlines()) == 1


def test_a_full_name_matches_one_layer() -> None:
    assert len(read_adapter(check("llama", "model.layers.0.self_attn.q_proj"))) == 2
