"""Tests of the family of a model, which follows from its configuration alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from common.errors import ModelError
from learning.models.families import Family, check, family
from learning.models.objective_model import family_for_objective

GPT2 = {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2"}
BERT = {"architectures": ["BertForMaskedLM"], "model_type": "bert"}


@pytest.mark.parametrize(
    ("architecture", "kind", "expected"),
    [
        ("GPT2LMHeadModel", "gpt2", "causal"),
        ("LlamaForCausalLM", "llama", "causal"),
        ("BertLMHeadModel", "bert", "causal"),
        ("BertForMaskedLM", "bert", "encoder"),
        ("BertForPreTraining", "bert", "encoder"),  # TinyBERT
        ("BertModel", "bert", "encoder"),  # MiniLM
        ("RobertaForSequenceClassification", "roberta", "encoder"),
        ("DistilBertForMaskedLM", "distilbert", "encoder"),
        ("GPT2Model", "gpt2", None),  # no head to continue texts with
        ("T5ForConditionalGeneration", "t5", None),
        ("BertForQuestionAnswering", "bert", None),
        ("ViTModel", "vit", None),
    ],
)
def test_the_architecture_determines_the_family(
    architecture: str, kind: str, expected: Family | None
) -> None:
    assert family({"architectures": [architecture], "model_type": kind}) == expected


@pytest.mark.parametrize("config", [{}, {"architectures": None}, {"architectures": []}])
def test_a_configuration_without_an_architecture_has_no_family(config: dict[str, Any]) -> None:
    assert family(config) is None


def test_preferences_and_instructions_need_one_family_and_classes_the_other() -> None:
    assert [family_for_objective(name) for name in ("sft", "dpo", "classification")] == [
        "causal", "causal", "encoder"
    ]  # fmt: skip


def model(folder: Path, config: object, weights: str = "model.safetensors") -> Path:
    (folder / "config.json").write_text(json.dumps(config))
    (folder / weights).write_bytes(b"")
    return folder


def refusal(path: Path, required: Family | None) -> ModelError:
    with pytest.raises(ModelError) as caught:
        check(path, "mine", required)
    assert len(str(caught.value).splitlines()) == 1
    return caught.value


def test_a_model_of_the_required_family_passes(tmp_path: Path) -> None:
    check(model(tmp_path, GPT2), "mine", "causal")
    check(model(tmp_path, BERT), "mine", "encoder")
    check(tmp_path, "mine", None)


def test_an_encoder_for_instructions_is_refused_with_a_model_that_would_do(tmp_path: Path) -> None:
    error = refusal(model(tmp_path, BERT), "causal")
    assert error.what == "model mine is not a causal language model (architecture BertForMaskedLM)"
    assert "sft and dpo need one, such as gpt2" in error.remedy


def test_a_causal_model_for_classes_is_refused_with_a_model_that_would_do(tmp_path: Path) -> None:
    error = refusal(model(tmp_path, GPT2), "encoder")
    assert error.what == "model mine is not an encoder (architecture GPT2LMHeadModel)"
    assert "classification needs one, such as bert-base-uncased" in error.remedy


def test_a_model_of_neither_family_is_refused_in_any_case(tmp_path: Path) -> None:
    vision = {"architectures": ["ViTModel"], "model_type": "vit"}
    for required in (None, "causal", "encoder"):
        assert "ViTModel" in refusal(model(tmp_path, vision), required).what
    assert "architecture none" in refusal(model(tmp_path, {}), None).what


@pytest.mark.parametrize("content", [None, "", "{", "[]", '"gpt2"', "\xff"])
def test_a_directory_without_a_readable_configuration_is_refused(
    tmp_path: Path, content: str | None
) -> None:
    if content is not None:
        (tmp_path / "config.json").write_bytes(content.encode("latin-1"))
    assert "has no readable config.json" in refusal(tmp_path, None).what


def test_pickled_weights_are_never_loaded(tmp_path: Path) -> None:
    error = refusal(model(tmp_path, GPT2, "pytorch_model.bin"), "causal")
    assert "no safetensors weights" in error.what
    assert "save it again" in error.remedy
