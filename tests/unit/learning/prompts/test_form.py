"""Text and labels of prompt forms, written by hand where trl does not support the template."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import date

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from common.protocol.tasks import PromptSpec
from learning.data.row_types import Conversation, Instruction, Message, PreferencePair, Role
from learning.objectives import dpo, tokens
from learning.objectives.tokens import IGNORED, TokenisedExample
from learning.prompts.choice import choose_prompt
from learning.prompts.form import PromptForm, alpaca_spec
from tests.support.families import family_tokenizer

TODAY = date(2026, 11, 27)
SMOLLM2 = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\nYou help.<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MISTRAL = """\
{%- if messages[0].role == 'system' -%}
  {%- set system = messages[0].content + '\\n\\n' -%}{%- set turns = messages[1:] -%}
{%- else -%}
  {%- set system = '' -%}{%- set turns = messages -%}
{%- endif -%}
{{- bos_token -}}
{%- for m in turns -%}
  {%- if (m.role == 'user') != (loop.index0 % 2 == 0) -%}
    {{- raise_exception('the user and the assistant must take turns') -}}
  {%- elif m.role == 'user' -%}
    {{- '[INST] ' + (system if loop.last or loop.index0 == turns | length - 2 else '') -}}
    {{- m.content + '[/INST]' -}}
  {%- else -%}
    {{- ' ' + m.content + eos_token -}}
  {%- endif -%}
{%- endfor -%}
"""
PHI3 = """\
{%- for m in messages -%}{{- '<|' + m.role + '|>\\n' + m.content + '<|end|>\\n' -}}{%- endfor -%}
{%- if add_generation_prompt -%}
  {{- '<|assistant|>\\n' -}}
{%- else -%}
  {{- eos_token -}}
{%- endif -%}
"""
TALK = (("system", "Be kind."), ("user", "Hi."), ("assistant", "Hello!"), ("user", "Bye."),
        ("assistant", "Goodbye."))  # fmt: skip
TOOLS = '[{"type": "function", "function": {"name": "weather", "parameters": {}}}]'
CALL = '[{"name": "weather", "arguments": {"town": "Rome"}}]'


def talk(*turns: tuple[Role, str], tools: str = "") -> Conversation:
    return Conversation(tuple(Message(role, text) for role, text in turns), tools)


def form_of(family: str, template: str | None = None, turns: str = "all") -> PromptForm:
    tokenizer = family_tokenizer(family, template)
    return PromptForm(tokenizer, choose_prompt("auto", tokenizer, [turns], TODAY))  # type: ignore[list-item]


def encode(form: PromptForm, row: Instruction | Conversation) -> TokenisedExample:
    found = tokens.encode(form.tokenizer, [row], 1000, form.spec)
    assert found.skipped == {}
    return found.examples[0]


def parts(form: PromptForm, example: TokenisedExample) -> list[tuple[bool, str]]:
    """Return the text of an example in runs of tokens that are, or are not, learned."""
    runs: list[tuple[bool, list[int]]] = []
    for each, label in zip(example.input_ids, example.labels, strict=True):
        assert label in (IGNORED, each)
        learned = label != IGNORED
        if not runs or runs[-1][0] != learned:
            runs.append((learned, []))
        runs[-1][1].append(each)
    return [(learned, form.tokenizer.decode(ids)) for learned, ids in runs]


@pytest.mark.parametrize(
    ("family", "template", "expected"),
    [
        (
            "smollm2",
            SMOLLM2,
            [
                (False, "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi.<|im_end|>\n"
                        "<|im_start|>assistant\n"),
                (True, "Hello!<|im_end|>\n"),
                (False, "<|im_start|>user\nBye.<|im_end|>\n<|im_start|>assistant\n"),
                (True, "Goodbye.<|im_end|>\n"),
            ],
        ),
        (
            "llama",
            None,
            [
                (False, "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe kind."
                        "<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nHi.<|eot_id|>"
                        "<|start_header_id|>assistant<|end_header_id|>\n\n"),
                (True, "Hello!<|eot_id|>"),
                (False, "<|start_header_id|>user<|end_header_id|>\n\nBye.<|eot_id|>"
                        "<|start_header_id|>assistant<|end_header_id|>\n\n"),
                (True, "Goodbye.<|eot_id|>"),
            ],
        ),
    ],
)  # fmt: skip
def test_every_answer_is_learned_with_the_end_of_its_turn(
    family: str, template: str | None, expected: list[tuple[bool, str]]
) -> None:
    form = form_of(family, template)
    example = encode(form, talk(*TALK))  # type: ignore[arg-type]
    assert parts(form, example) == expected
    assert example.response_bytes == len("Hello!Goodbye.")


def learned_text(form: PromptForm, row: Instruction | Conversation) -> list[str]:
    return [text.strip() for is_learned, text in parts(form, encode(form, row)) if is_learned]


def test_a_system_turn_that_a_template_moves_stands_before_the_first_question() -> None:
    form = form_of("mistral", MISTRAL)
    whole = form.encode([talk(*TALK)])[0]  # type: ignore[arg-type]
    assert not isinstance(whole, str)
    assert whole.text == (
        "<s>[INST] Be kind.\n\nHi.[/INST] Hello!</s>[INST] Bye.[/INST] Goodbye.</s>"
    )
    assert learned_text(form, talk(*TALK)) == ["Hello!</s>", "Goodbye.</s>"]  # type: ignore[arg-type]


def test_a_token_that_ends_every_text_but_not_every_turn_is_learned_at_the_end() -> None:
    form = form_of("phi3", PHI3)
    first, last = learned_text(form, talk(*TALK))  # type: ignore[arg-type]
    assert first.startswith("Hello!<|end|>")
    assert "<|endoftext|>" not in first
    assert last.startswith("Goodbye.<|end|>")
    assert last.endswith("<|endoftext|>")
    assert [form.tokenizer.decode([each]) for each in form.end_ids] == ["<|end|>", "<|endoftext|>"]


def test_earlier_answers_are_learned_with_their_own_end_if_the_last_has_another() -> None:
    template = """\
{%- for m in messages -%}
  {{- '<|im_start|>' + m.role + '\\n' + m.content -}}
  {{- eos_token if loop.last and m.role == 'assistant' else '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""
    tokenizer = family_tokenizer("qwen2", template)
    tokenizer.eos_token = "<|endoftext|>"
    form = PromptForm(tokenizer, choose_prompt("auto", tokenizer, ["all"], TODAY))
    assert learned_text(form, talk(*TALK)) == ["Hello!<|im_end|>", "Goodbye.<|endoftext|>"]


def test_a_row_whose_answer_the_template_cuts_is_counted_with_the_reason() -> None:
    cuts = SMOLLM2.replace("{{ m.content }}", "{{ m.content.split('</think>')[-1] }}")
    form = form_of("smollm2", cuts)
    rows = [Instruction("Hi.", "", "<think>a</think> b"), Instruction("Hi.", "", " a\nb ")]
    found = tokens.encode(form.tokenizer, rows, 1000, form.spec)
    assert found.kept == (1,)
    assert list(found.skipped) == [
        "the chat template cannot render these turns: it leaves out words of an answer"
    ]


def test_only_the_last_answer_is_learned_on_request() -> None:
    for family in ("smollm2", "llama", "gemma2"):
        form = form_of(family, turns="last")
        [learned] = learned_text(form, talk(*TALK))  # type: ignore[arg-type]
        assert learned.startswith("Goodbye.")


def test_the_alpaca_form_repeats_its_headings_in_later_turns() -> None:
    form = form_of("gpt2")
    row = talk(("user", "Hi."), ("assistant", "Hello!"), ("user", "Bye."), ("assistant", "Bye!"))
    whole = form.encode([row])[0]
    assert not isinstance(whole, str)
    assert whole.text.endswith(
        "### Instruction:\nHi.\n\n### Response:\nHello!<|endoftext|>"
        "\n\n### Instruction:\nBye.\n\n### Response:\nBye!<|endoftext|>"
    )
    assert learned_text(form, row) == ["Hello!<|endoftext|>", "Bye!<|endoftext|>"]
    with_system = form.encode([talk(*TALK)])[0]  # type: ignore[arg-type]
    assert not isinstance(with_system, str)
    assert with_system.text.startswith("Be kind.\n\n### Instruction:\nHi.\n\n### Response:\nHello!")


def test_a_prompt_has_the_same_ids_in_training_and_generation() -> None:
    rows = [
        Instruction("Add the numbers.", "1, 2", "The sum is three."),
        talk(*TALK),  # type: ignore[arg-type]
        talk(("user", "Which?"), ("assistant", "This.")),
    ]
    for family in ("smollm2", "llama", "gemma2", "mistral", "gpt2"):
        form = form_of(family)
        for row in rows:
            example, asked = encode(form, row), form.prompt_ids(row)
            assert list(example.input_ids[: len(asked)]) == asked
            assert example.labels[len(asked)] != IGNORED
            assert example.labels[len(asked) - 1] == IGNORED


def test_a_greeting_of_the_assistant_is_learned_whatever_the_template_begins_with() -> None:
    row = talk(("assistant", "Welcome."), ("user", "Hi."), ("assistant", "Hello!"))
    for family in ("smollm2", "llama", "gemma2", "gpt2"):
        first, second = learned_text(form_of(family), row)
        assert first.startswith("Welcome.")
        assert second.startswith("Hello!")


def test_calls_and_results_of_tools_are_text_where_a_template_knows_no_tools() -> None:
    row = Conversation(
        (
            Message("user", "Weather?"),
            Message("assistant", "", CALL),
            Message("tool", "rain"),
            Message("assistant", "It rains."),
        ),
        TOOLS,
    )
    for family in ("smollm2", "llama", "gemma2", "mistral", "gpt2"):
        form = form_of(family)
        whole = form.encode([row])[0]
        assert not isinstance(whole, str), family
        for text in ('"name": "weather"', '{"town": "Rome"}', "rain", "It rains."):
            assert text in whole.text
        called, answered = learned_text(form, row)
        assert called.startswith("<tool_call>")
        assert '{"town": "Rome"}' in called
        assert answered.startswith("It rains.")


# Control strings in the text of rows.

ODD = "The marker <|im_end|> closes a turn, <|im_start|>user opens one; <eos> <end_of_turn> </s>."
EVERYWHERE = ("smollm2", "qwen3", "llama", "gemma2", "mistral", "phi3", "gpt2")


@pytest.mark.parametrize("family", EVERYWHERE)
def test_control_strings_in_a_row_stay_text(family: str) -> None:
    form = form_of(family)
    tokenizer = form.tokenizer
    odd = ODD + "".join(tokenizer.all_special_tokens) + "."
    row = talk(("user", odd), ("assistant", odd), ("user", "Why?"), ("assistant", odd))
    plain = talk(("user", "x"), ("assistant", "x"), ("user", "Why?"), ("assistant", "x"))
    example = encode(form, row)
    assert controls(tokenizer, example.input_ids) == controls(
        tokenizer, encode(form, plain).input_ids
    )
    texts = [text for learned, text in parts(form, example) if learned]
    assert len(texts) == 2
    assert all(odd.replace(" ", "") in text.replace(" ", "") for text in texts)
    asked = form.prompt_ids(row)
    assert list(example.input_ids[: len(asked)]) == asked


@pytest.mark.parametrize("text", ["＜|im_end|＞", "so <|IM_END|> it", "<|im_end|>＜｜im_end｜＞"])
def test_text_that_a_normaliser_would_change_into_a_control_string_stays_text(text: str) -> None:
    whole = json.loads(family_tokenizer("smollm2").backend_tokenizer.to_str())
    steps = [{"type": "NFKC"}, {"type": "Lowercase"}]
    whole["normalizer"] = {"type": "Sequence", "normalizers": steps}
    for added in whole["added_tokens"]:
        added["normalized"] = True
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(whole)), eos_token="<|im_end|>"
    )
    form = PromptForm(tokenizer, PromptSpec(template=SMOLLM2))
    plain, odd = (encode(form, Instruction(each, "", each)) for each in ("word", text))
    assert controls(tokenizer, odd.input_ids) == controls(tokenizer, plain.input_ids)
    assert controls(tokenizer, odd.labels) == [tokenizer.eos_token_id]


def controls(tokenizer: PreTrainedTokenizerFast, ids: Sequence[int]) -> list[int]:
    return [each for each in ids if each in tokenizer.all_special_ids]


PIECES = [*"ab <|>\n", "<|im_end|>", "<|im_start|>", "\ufdd0"]


@given(st.lists(st.sampled_from(PIECES), max_size=9))
@settings(max_examples=60, deadline=None)
def test_no_text_of_a_row_adds_a_control_token(pieces: list[str]) -> None:
    text = "".join(pieces)
    form = SMOL
    row = talk(("user", f"q{text}"), ("assistant", f"a{text}."))
    example = encode(form, row)
    assert len(controls(form.tokenizer, example.input_ids)) == 6  # of three turns
    [learned] = [words for is_learned, words in parts(form, example) if is_learned]
    assert learned == f"a{text}.<|im_end|>\n"


SMOL = form_of("smollm2", SMOLLM2)


def test_a_preference_pair_with_control_strings_learns_one_end() -> None:
    pair = PreferencePair("What is <|im_end|>?", f"It is {ODD}", "No <|im_end|> idea.")
    [found] = dpo.encode(SMOL.tokenizer, [pair], 1000, SMOL.spec).examples
    for answer in (found.chosen, found.rejected):
        ends = [label for label in answer.labels if label == SMOL.end_ids[0]]
        assert len(ends) == 1


def test_the_end_is_learned_where_it_is_also_the_padding() -> None:
    tokenizer = family_tokenizer("smollm2")
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    form = PromptForm(tokenizer, choose_prompt("auto", tokenizer, ["all"], TODAY))
    example = encode(form, talk(("user", "Hi."), ("assistant", "Hello!")))
    assert form.end_ids == (tokenizer.eos_token_id,)
    assert tokenizer.eos_token_id in example.labels


def test_old_runs_without_a_form_use_the_alpaca_form_even_with_a_chat_template() -> None:
    tokenizer = family_tokenizer("smollm2")
    form = PromptForm(tokenizer, None)
    assert form.spec == alpaca_spec(tokenizer)
    assert isinstance(form.spec, PromptSpec)
    assert "### Response:" in tokenizer.decode(form.prompt_ids(Instruction("Hi.", "", "")))


def test_a_row_that_leaves_no_character_to_mark_its_control_strings_is_refused() -> None:
    every = "".join(map(chr, range(0xFDD0, 0xFDF0)))
    rows = [talk(("user", f"<|im_end|>{every}"), ("assistant", "a")), Instruction("a", "", "b")]
    refused, kept = SMOL.encode(rows)
    assert isinstance(refused, str)
    assert "noncharacters" in refused
    assert not isinstance(kept, str)
