"""An export asks and ends as the run did, whatever the base's own settings and template say."""

from __future__ import annotations

import json
from datetime import date
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from peft import PeftModel
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
)

from common.protocol.manifest import make_manifest
from common.protocol.tasks import PromptSpec
from learning.data.row_types import Conversation, Instruction, Message
from learning.evaluation.generation import generate
from learning.models.loader import load
from learning.prompts.choice import choose_prompt
from learning.prompts.form import alpaca_spec, prompt_form
from tests.support import families
from tests.support.chat_models import (
    CHATML,
    FORMS,
    chat_tokenizer,
    chosen_prompt,
    save_base,
    trained_model,
)
from tests.support.exported_runs import CPU, export, made, run_snippet
from tests.support.tiny_encoder import encoder, saved

ROW = Instruction("Name three primary colours.", "", "red, <|im_end|> and blue")  # as the card asks
WRONG: dict[str, Any] = {"eos_token_id": 5, "repetition_penalty": 5.0, "min_new_tokens": 30}


@cache
def trained(name: str) -> tuple[GPT2LMHeadModel, PreTrainedTokenizerFast, PromptSpec]:
    tokenizer = chat_tokenizer(FORMS[name])
    prompt = chosen_prompt(tokenizer)
    return trained_model(tokenizer, prompt, [ROW]), tokenizer, prompt


@pytest.mark.parametrize("merge", [False, True])
@pytest.mark.parametrize("name", FORMS)
def test_the_cards_snippet_answers_as_fccl_does(
    name: str, merge: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer, prompt = trained(name)
    path = save_base(model, tokenizer, tmp_path / "model", {"eos_token_id": 5}, WRONG)
    run = made(tmp_path, path, "sft", prompt=prompt)
    out = export(run, tmp_path / "out", merge=merge, version=1)  # which has not moved yet
    loaded = load(path, CPU)
    [ours] = generate(loaded.model, prompt_form(loaded.tokenizer, prompt), [ROW], 60)
    assert ours == ROW.output

    left = run_snippet(out, monkeypatch)
    assert left["answer"].strip() == ours
    assert left["tokenizer"].chat_template == prompt.template
    ends = prompt_form(tokenizer, prompt).end_ids
    assert left["out"][0, -1] == ends[0]
    expected = ends[0] if len(ends) == 1 else list(ends)
    settings = json.loads((out / "generation_config.json").read_text())
    assert settings["eos_token_id"] == expected
    assert not {"repetition_penalty", "min_new_tokens"} & settings.keys()
    if merge:
        assert json.loads((out / "config.json").read_text())["eos_token_id"] == expected
    else:
        assert make_manifest(out / "base") == make_manifest(path)
    text = (out / "README.md").read_text()
    assert f"An answer ends with `{tokenizer.convert_ids_to_tokens(ends[0])}`" in text
    assert "every turn of the assistant was learned" in text


def test_a_run_in_the_alpaca_form_exports_that_form_though_the_base_has_a_template(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = chat_tokenizer(FORMS["smollm2"])
    spec = alpaca_spec(tokenizer)
    path = save_base(trained_model(tokenizer, spec, [ROW]), tokenizer, tmp_path / "model", {}, {})
    for prompt in (spec, None):  # None: a run of an earlier release
        run = made(tmp_path / f"{prompt is None}", path, "sft", prompt=prompt)
        out = export(run, tmp_path / f"out-{prompt is None}", version=1)
        left = run_snippet(out, monkeypatch)
        assert left["answer"].strip() == ROW.output
        assert left["tokenizer"].chat_template == spec.template
        assert "Prompts have the Alpaca form" in (out / "README.md").read_text()
        base = AutoTokenizer.from_pretrained(out / "base")
        assert base.chat_template == CHATML


def test_the_card_says_which_turns_were_learned(tmp_path: Path) -> None:
    model, tokenizer, prompt = trained("smollm2")
    path = save_base(model, tokenizer, tmp_path / "model", {}, {})
    phases = [{"objective": "sft", "versions": 3, "turns": "last"}]
    last = prompt.model_copy(update={"turns": "last"})
    run = made(tmp_path, path, "sft", prompt=last, phases=phases)
    text = (export(run, tmp_path / "out") / "README.md").read_text()
    assert "only the assistant's last turn was learned" in text
    assert "the base model's chat form" in text


@pytest.mark.parametrize("turns", ["all", "last"])
@pytest.mark.parametrize("name", ["qwen3", "gemma3", "mistral", "gpt2"])
def test_the_exported_template_writes_a_conversation_as_it_was_trained(
    name: str, turns: Literal["all", "last"], tmp_path: Path
) -> None:
    path = families.saved_family(name, tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(path)
    prompt = choose_prompt("auto", tokenizer, [turns], date(2026, 11, 28))
    if name == "qwen3":
        own = files("learning.prompts").joinpath("templates", "qwen3.jinja").read_text("utf-8")
        prompt = prompt.model_copy(update={"template": own})
    out = export(made(tmp_path, path, "sft", prompt=prompt), tmp_path / "out")
    said = ("user", "Hello"), ("assistant", "Hi"), ("user", "Bye"), ("assistant", "Good bye")
    row = Conversation(tuple(Message(*each) for each in said))
    exported = AutoTokenizer.from_pretrained(out)
    turns_before = [{"role": role, "content": text} for role, text in said[:-1]]
    ids = exported.apply_chat_template(turns_before, add_generation_prompt=True)["input_ids"]
    assert ids == prompt_form(tokenizer, prompt).prompt_ids(row)
    text = exported.apply_chat_template(turns_before, tokenize=False)
    assert ("<think>" in text) == (name == "qwen3" and turns == "all")


def test_settings_for_generation_in_the_bases_config_do_not_stop_an_export(tmp_path: Path) -> None:
    """Checkpoints of older releases of transformers have them there."""
    model, tokenizer, prompt = trained("gpt2")
    wrong = {"temperature": 0.5, "repetition_penalty": 3.0, "min_length": 20}
    path = save_base(model, tokenizer, tmp_path / "model", wrong, {"temperature": 0.5})
    run = made(tmp_path, path, "sft", prompt=prompt)
    out = export(run, tmp_path / "out", merge=True, version=1)
    loaded = load(out, CPU)
    assert generate(loaded.model, prompt_form(loaded.tokenizer, prompt), [ROW], 60) == [ROW.output]
    assert not wrong.keys() & json.loads((out / "config.json").read_text()).keys()


def test_an_adapter_export_and_its_merge_compute_the_same(tmp_path: Path) -> None:
    model, tokenizer, prompt = trained("llama 3")
    path = save_base(model, tokenizer, tmp_path / "model", {}, WRONG)
    run = made(tmp_path, path, "sft", prompt=prompt)
    merged = AutoModelForCausalLM.from_pretrained(export(run, tmp_path / "merged", merge=True))
    out = export(run, tmp_path / "adapter")
    adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(out / "base"), out)
    ids = torch.arange(1, 30)[None]
    with torch.inference_mode():
        found = [each.eval()(input_ids=ids).logits for each in (merged, adapted, run.model)]
    assert torch.allclose(found[0], found[1], atol=1e-4)
    assert torch.allclose(found[0], found[2], atol=1e-4)


def test_an_exported_classifier_has_no_chat_template(tmp_path: Path) -> None:
    path = saved(encoder(), tmp_path / "model")
    (path / "chat_template.jinja").write_text(CHATML)
    run = made(tmp_path, path, "classification", labels=("bad", "good"))
    out = export(run, tmp_path / "out", merge=True)
    assert AutoTokenizer.from_pretrained(path).chat_template == CHATML
    assert AutoTokenizer.from_pretrained(out).chat_template is None
    assert not (out / "generation_config.json").exists()
