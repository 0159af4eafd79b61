"""Directories that hold something else than a usable model are refused with what they hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from common.errors import ModelError
from learning.models import base
from learning.models.families import check

LLAMA = {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}


def write(folder: Path, *names: str, config: dict[str, Any] | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    return folder


def refusal(path: Path) -> ModelError:
    with pytest.raises(ModelError) as caught:
        base.resolve(str(path), None, path, lambda *_: None, "causal")
    assert caught.value.exit_code == 4
    assert len(str(caught.value).splitlines()) == 1
    return caught.value


def adapter(folder: Path, **fields: Any) -> Path:
    write(folder, "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", **fields}))
    return folder


def test_an_adapter_is_named_as_one_with_its_base(tmp_path: Path) -> None:
    error = refusal(adapter(tmp_path / "a", base_model_name_or_path="org/base"))
    assert error.what.endswith("is a PEFT adapter, not a whole model; its base is org/base")
    assert "model.adapter" in error.remedy and "merge" in error.remedy


@pytest.mark.parametrize("content", ["", "[]", '{"base_model_name_or_path": "a\\nb"}', "\x00"])
def test_an_adapter_with_a_damaged_configuration_is_named_as_one(
    tmp_path: Path, content: str
) -> None:
    path = adapter(tmp_path / "a")
    (path / "adapter_config.json").write_text(content)
    assert refusal(path).what.endswith("is a PEFT adapter, not a whole model")


def test_an_adapter_beside_a_model_is_refused(tmp_path: Path) -> None:
    # transformers would load the adapter, with the base that it names.
    path = write(adapter(tmp_path / "a"), "model.safetensors", config=LLAMA)
    assert "holds a PEFT adapter beside a model" in refusal(path).what


@pytest.mark.parametrize(
    ("names", "config", "says"),
    [
        (("model.gguf",), None, "GGUF"),
        (("model.gguf",), LLAMA, "GGUF"),
        (("pytorch_model.bin",), LLAMA, "pickled weights are never loaded"),
        (("pytorch_model-00001-of-00002.bin",), LLAMA, "pickled weights are never loaded"),
        (("consolidated.00.pth", "params.json"), None, "convert it"),
        (("tf_model.h5",), LLAMA, "TensorFlow"),
        (("flax_model.msgpack",), LLAMA, "Flax"),
        (("model.onnx",), LLAMA, "ONNX"),
        (("model.fp16.safetensors",), LLAMA, "model.fp16.safetensors has another name"),
        (("run.db",), None, "fccl export"),
        (("model_index.json",), None, "image models"),
        ((), None, "save_pretrained"),
        ((), LLAMA, "save_pretrained"),
    ],
)
def test_other_contents_are_named_with_a_remedy(
    tmp_path: Path, names: tuple[str, ...], config: dict[str, Any] | None, says: str
) -> None:
    assert says in refusal(write(tmp_path / "m", *names, config=config)).remedy


@pytest.mark.parametrize("inner", ["checkpoint-500", "snapshots/abc", "0_Transformer"])
def test_a_model_in_a_sub_folder_is_found_for_the_user(tmp_path: Path, inner: str) -> None:
    write(tmp_path / "m" / inner, "model.safetensors", config=LLAMA)
    assert str(tmp_path / "m" / inner) in refusal(tmp_path / "m").remedy


def test_an_adapter_in_a_sub_folder_is_found_for_the_user(tmp_path: Path) -> None:
    adapter(tmp_path / "m" / "checkpoint-500")
    assert "checkpoint-500 is a PEFT adapter" in refusal(tmp_path / "m").remedy


def test_a_file_is_refused_as_one(tmp_path: Path) -> None:
    write(tmp_path, "model.gguf", "model.safetensors")
    assert "GGUF" in refusal(tmp_path / "model.gguf").remedy
    assert "is a file" in refusal(tmp_path / "model.safetensors").what


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"quantization_config": {"quant_method": "gptq"}}, "quantized (gptq)"),
        ({"quantization_config": True}, "quantized"),
        ({"architectures": ["BertLMHeadModel"], "model_type": "bert"}, "reads ahead"),
        ({"architectures": ["LlamaModel"]}, "not a causal language model"),
        (
            {"architectures": ["Gemma3ForConditionalGeneration"], "vision_config": {}},
            "text-only model",
        ),
    ],
)
def test_models_that_cannot_be_trained_are_refused_by_their_configuration(
    tmp_path: Path, more: dict[str, Any], says: str
) -> None:
    assert says in str(refusal(write(tmp_path / "m", "model.safetensors", config=LLAMA | more)))


def test_a_decoder_of_the_bert_family_passes(tmp_path: Path) -> None:
    config = {"architectures": ["BertLMHeadModel"], "model_type": "bert", "is_decoder": True}
    check(write(tmp_path / "m", "model.safetensors", config=config), "m", "causal")
