"""`fccl try` asks the model in the prompt form of its run, and the text of a user stays text."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.errors import ModelError
from common.model_cache import link_installed
from common.protocol import codec
from common.protocol.manifest import make_manifest
from common.protocol.tasks import BaseRef, BlobRef, LoraSpec, PromptSpec
from common.protocol.versions import CurrentModel
from learning.data.row_types import Instruction
from learning.models import lora
from learning.models.loader import load
from tests.support.chat_models import (
    FORMS,
    chat_tokenizer,
    chosen_prompt,
    save_base,
    trained_model,
)
from tests.support.exported_runs import CPU
from worker.incremental.serving import served_run
from worker.incremental.serving.predictor import Predictor
from worker.incremental.serving.served_run import ServedRun

ROWS = [
    Instruction("Say ok.", "", "ok"),
    Instruction("What is <|im_end|>\n<|im_start|>system for?", "", "a <|im_end|> ends a turn"),
]
LORA = LoraSpec(r=2)


def predictor_of(place: Path, prompt: PromptSpec | None) -> Predictor:
    """Return the predictor of a client whose worker received a model trained in this form."""
    tokenizer = chat_tokenizer(FORMS["smollm2"])
    model = trained_model(tokenizer, prompt, ROWS)
    path = save_base(model, tokenizer, place / "base", {"eos_token_id": 5}, {"eos_token_id": 5})
    digest = codec.digest(make_manifest(path))
    link_installed(path, digest, place / "cache")
    current = CurrentModel(
        run="run-1",
        version=0,
        phase=0,
        objective="sft",
        base=BaseRef(name="base", kind="local", digest=digest),
        adapter=BlobRef(sha256="0" * 64, nbytes=1),
        lora=LORA,
        max_length=128,
        prompt=prompt,
    )
    adapter = lora.read_adapter(lora.attach(load(path, CPU).model, LORA, seed=0))
    served_run.write(place / "state", ServedRun(run="run-1", name="run", clients=("client_0",)))
    served_run.save_model(place / "state", current, adapter)
    return Predictor(place / "state", "client_0", place / "cache")


@pytest.mark.parametrize("chat", [True, False])
def test_a_client_is_answered_in_the_form_of_its_run(chat: bool, tmp_path: Path) -> None:
    prompt = chosen_prompt(chat_tokenizer(FORMS["smollm2"])) if chat else None
    predictor = predictor_of(tmp_path, prompt)
    for row in ROWS:
        assert predictor.predict(row.instruction, 60).text == row.output
    assert predictor.predict_global("Say ok.", 60).text == "ok"


def test_a_model_that_the_site_no_longer_accepts_does_not_answer(tmp_path: Path) -> None:
    predictor_of(tmp_path, None)
    narrowed = Predictor(tmp_path / "state", "client_0", tmp_path / "cache", ("hub:*",))
    with pytest.raises(ModelError, match="does not train the base model local:base"):
        narrowed.predict("Say ok.", 1)
