"""Equality of token ids and labels with trl's, for the templates of vendors that trl supports."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest
import torch
import trl.chat_template_utils as vendors
from datasets import Dataset
from transformers import PreTrainedTokenizerFast
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

from common.protocol.tasks import PromptSpec
from learning.data.row_types import Conversation, Message, PreferencePair
from learning.objectives import dpo, tokens
from learning.objectives.tokens import IGNORED
from learning.prompts.choice import choose_prompt
from tests.support.families import family_tokenizer
from tests.support.tiny_model import tiny_model

TODAY = date(2026, 11, 27)
TEMPLATES = {
    "llama": ("llama", vendors.llama3_chat_template),
    "qwen2.5": ("qwen2", vendors.qwen2_5_chat_template),
    "qwen3": ("qwen3", vendors.qwen3_chat_template),
    "qwen3 instruct": ("qwen3", vendors.qwen3_instruct_2507_chat_template),
    "gemma 2": ("gemma2", vendors.gemma_chat_template),
    "gemma 3": ("gemma3", vendors.gemma3_chat_template),
}
NO_SYSTEM = ("gemma 2",)  # whose template refuses system turns
TALKS = (
    (("user", "Hello?"), ("assistant", "Yes.\nNo ")),
    (("user", " a "), ("assistant", "b"), ("user", "c"), ("assistant", "d é 日本 e.")),
    (
        ("user", "One?"), ("assistant", "1."), ("user", "Two?"), ("assistant", "\n2"),
        ("user", "Three?"), ("assistant", "3"),
    ),
    (("system", "Be kind."), ("user", "Hi."), ("assistant", "Hi!"), ("user", "?"),
     ("assistant", "No.")),
)  # fmt: skip
CALL = {"name": "weather", "arguments": {"town": "Rome", "days": [1, 2]}}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


@pytest.fixture(params=TEMPLATES, scope="module")
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    """Restore the random state afterwards, since trl seeds the process."""
    with torch.random.fork_rng(devices=[]):
        yield


def tokenizer_of(family: str) -> PreTrainedTokenizerFast:
    name, template = TEMPLATES[family]
    tokenizer = family_tokenizer(name, template)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    return tokenizer


def chosen_form(tokenizer: PreTrainedTokenizerFast) -> PromptSpec:
    return choose_prompt("auto", tokenizer, ["all"], TODAY)


def talks(family: str) -> list[tuple[tuple[str, str], ...]]:
    return [talk for talk in TALKS if talk[0][0] != "system" or family not in NO_SYSTEM]


def as_dicts(turns: tuple[tuple[str, str], ...]) -> list[dict[str, str]]:
    return [{"role": role, "content": text} for role, text in turns]


def as_messages(turns: tuple[tuple[str, str], ...]) -> tuple[Message, ...]:
    return tuple(Message(role, text) for role, text in turns)  # type: ignore[arg-type]


def test_every_answer_of_a_conversation_has_the_ids_and_labels_of_trl(
    family: str, tmp_path: Path
) -> None:
    tokenizer = tokenizer_of(family)
    rows = [Conversation(as_messages(talk)) for talk in talks(family)]
    found = tokens.encode(tokenizer, rows, 250, chosen_form(tokenizer))
    assert found.skipped == {}
    trainer = SFTTrainer(
        model=tiny_model(len(tokenizer)),
        args=SFTConfig(
            output_dir=str(tmp_path),
            use_cpu=True,
            bf16=False,
            report_to="none",
            max_length=250,
            assistant_only_loss=True,
            gradient_checkpointing=False,
        ),
        train_dataset=Dataset.from_list([{"messages": as_dicts(talk)} for talk in talks(family)]),
        processing_class=tokenizer_of(family),
    )
    for example, theirs in zip(found.examples, trainer.train_dataset, strict=True):
        assert list(example.input_ids) == theirs["input_ids"]
        assert list(example.labels) == theirs["labels"]


def test_calls_and_results_of_tools_have_the_ids_and_labels_of_trl() -> None:
    for family in ("qwen2.5", "qwen3"):
        tokenizer = tokenizer_of(family)
        turns = [
            {"role": "user", "content": "Weather?"},
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [{"type": "function", "function": CALL}],
            },
            {"role": "tool", "content": "rain"},
            {"role": "tool", "content": "sun"},
            {"role": "assistant", "content": "It rains."},
        ]
        theirs = tokenizer.apply_chat_template(
            turns, tools=[TOOL], tokenize=True, return_dict=True, return_assistant_tokens_mask=True,
            chat_template=vendors.get_training_chat_template(tokenizer),
        )  # fmt: skip
        row = Conversation(
            (
                Message("user", "Weather?"),
                Message(
                    "assistant",
                    "",
                    '[{"name": "weather", "arguments": {"town": "Rome", "days": [1, 2]}}]',
                ),
                Message("tool", "rain"),
                Message("tool", "sun"),
                Message("assistant", "It rains."),
            ),
            '[{"type": "function", "function":'
            ' {"name": "weather", "parameters": {"type": "object"}}}]',
        )
        (example,) = tokens.encode(tokenizer, [row], 600, chosen_form(tokenizer)).examples
        assert list(example.input_ids) == theirs["input_ids"]
        learned = [label != IGNORED for label in example.labels]
        assert learned == [bool(each) for each in theirs["assistant_masks"]]


def test_a_pair_with_a_conversation_as_prompt_has_the_ids_and_labels_of_trl(
    family: str, tmp_path: Path
) -> None:
    tokenizer = tokenizer_of(family)
    asked = [talk[:-1] for talk in talks(family)]
    rows = [PreferencePair(as_messages(turns), "Yes, I do.", "No") for turns in asked]
    found = dpo.encode(tokenizer, rows, 250, chosen_form(tokenizer))
    assert found.skipped == {}
    trainer = DPOTrainer(
        model=tiny_model(len(tokenizer)),
        ref_model=tiny_model(len(tokenizer)),
        args=DPOConfig(
            output_dir=str(tmp_path),
            use_cpu=True,
            bf16=False,
            report_to="none",
            max_length=250,
            gradient_checkpointing=False,
        ),
        train_dataset=Dataset.from_list(
            [
                {
                    "prompt": as_dicts(turns),
                    "chosen": as_dicts((("assistant", "Yes, I do."),)),
                    "rejected": as_dicts((("assistant", "No"),)),
                }
                for turns in asked
            ]
        ),
        processing_class=tokenizer_of(family),
    )
    for pair, theirs in zip(found.examples, trainer.train_dataset, strict=True):
        prompt = theirs["prompt_ids"]
        for answer, ids in ((pair.chosen, "chosen_ids"), (pair.rejected, "rejected_ids")):
            assert list(answer.input_ids) == prompt + theirs[ids]
            assert list(answer.labels) == [IGNORED] * len(prompt) + theirs[ids]
