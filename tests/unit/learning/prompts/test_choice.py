"""Choice of the prompt form of a run, and the templates that are refused."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest
import trl.chat_template_utils as vendors

from common.errors import ConfigError, ModelError
from common.protocol.tasks import LearnedTurns
from learning.data.row_types import Conversation, Instruction, Message
from learning.prompts.choice import choose_prompt
from learning.prompts.form import PromptForm
from tests.support.families import CHATML, family_tokenizer

TODAY = date(2026, 11, 27)
MARKS_ALL = CHATML.replace("{{ m.content }}", "{% generation %}{{ m.content }}{% endgeneration %}")
LAST_ONLY = CHATML.replace("{{ m.content }}", "{{ m.content if loop.last else 'forgotten' }}")
THOUGHTS_OF_LAST = CHATML.replace(
    "{{ m.content }}",
    "{{ '<think></think>' if loop.last and m.role == 'assistant' else '' }}{{ m.content }}",
)


def choose(
    template: str | None,
    setting: str = "auto",
    turns: LearnedTurns = "all",
    family: str = "smollm2",
) -> str:
    tokenizer = family_tokenizer(family)
    tokenizer.chat_template = template
    return choose_prompt(setting, tokenizer, [turns], TODAY).template


def test_the_models_own_template_is_the_default_and_else_the_alpaca_form() -> None:
    assert choose(CHATML) == CHATML
    assert "### Response:" in choose(None)
    assert "### Response:" in choose(CHATML, "alpaca")
    assert choose(CHATML, "chat") == CHATML


def test_a_file_takes_the_place_of_the_models_template(tmp_path: Path) -> None:
    file = tmp_path / "own.jinja"
    own = CHATML.replace("{{ m.role }}", "{{ m.role }}:").replace("assistant\n", "assistant:\n")
    file.write_text(own)
    assert choose(CHATML, str(file)) == own


def test_an_empty_template_is_none_and_an_empty_file_is_refused(tmp_path: Path) -> None:
    assert "### Response:" in choose("")
    file = tmp_path / "empty.jinja"
    file.write_text("\n")
    with pytest.raises(ConfigError, match="is an empty file"):
        choose(CHATML, str(file))


def test_templates_of_which_none_is_the_default_are_refused_with_their_names() -> None:
    tokenizer = family_tokenizer("smollm2")
    tokenizer.chat_template = {"rag": CHATML, "tool_use": CHATML}
    with pytest.raises(ModelError, match="named rag, tool_use, but none named default"):
        choose_prompt("auto", tokenizer, ["all"], TODAY)
    assert "### Response:" in choose_prompt("alpaca", tokenizer, ["all"], TODAY).template


def test_marks_in_a_comment_do_not_count() -> None:
    template = "{# no {% generation %} {% endgeneration %} #}" + CHATML
    assert choose(template) == template


def test_marks_before_the_end_of_a_turn_are_refused_with_the_reason() -> None:
    text = "{{ m.content }}"
    marked = f"{{% generation %}}{text}{{% endgeneration %}}"
    either = f"{{% if m.role == 'assistant' %}}{marked}{{% else %}}{text}{{% endif %}}"
    marks = CHATML.replace(text, either)
    with pytest.raises(ModelError, match="marks answers without a token that ends them"):
        choose(marks)


def test_a_missing_file_or_template_is_refused() -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        choose(CHATML, "no/such/file.jinja")
    with pytest.raises(ModelError, match="no chat template"):
        choose(None, "chat")


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        (
            CHATML.replace("{% for m in messages %}", "{% for m in messages[-2:] %}"),
            "earlier turns",
        ),
        (CHATML.replace("in messages %}", "in messages[::-1] %}"), "earlier turns"),
        (LAST_ONLY, "earlier turns"),
        (THOUGHTS_OF_LAST, "earlier turns"),
        (CHATML.replace("<|im_end|>", "##"), "special token"),
        ("{{ oops(", "cannot be used"),
        ("{% for m in messages %}{{ m.content }}{% endfor %}", "special token"),
        (MARKS_ALL, "cannot be located"),
    ],
)
def test_templates_that_would_teach_wrong_labels_are_refused(template: str, reason: str) -> None:
    with pytest.raises(ModelError, match=reason) as caught:
        choose(template)
    assert "model.prompt" in str(caught.value)


def test_a_template_that_changes_earlier_turns_serves_where_the_last_is_learned() -> None:
    with pytest.raises(ModelError, match=r'phase\.turns to "last"'):
        choose(THOUGHTS_OF_LAST)
    assert choose(THOUGHTS_OF_LAST, turns="last") == THOUGHTS_OF_LAST


def test_a_template_that_drops_earlier_turns_does_not_serve_for_the_last_either() -> None:
    with pytest.raises(ModelError):
        choose(LAST_ONLY, turns="last")


def test_the_date_that_a_template_inserts_is_that_of_the_runs_beginning() -> None:
    dated = "{{ strftime_now('%d %b %Y') }}\n" + CHATML
    assert "27 Nov 2026" in choose(dated)
    assert "strftime_now" not in choose(dated)
    with pytest.raises(ModelError, match="date"):
        choose("{% set form = '%d' %}{{ strftime_now(form) }}\n" + CHATML)


@pytest.mark.parametrize("vendor", [vendors.llama3_1_chat_template, vendors.llama3_2_chat_template])
def test_llama_3_1_and_later_are_learned_with_one_date(vendor: str) -> None:
    template = choose(vendor, family="llama")
    tokenizer = family_tokenizer("llama", template)
    form = PromptForm(tokenizer, choose_prompt("auto", tokenizer, ["all"], date(2031, 1, 1)))
    text = form.encode([Instruction("Hi.", "", "Hello!")])[0]
    assert not isinstance(text, str)
    assert "Today Date: 27 Nov 2026" in text.text or "Today Date: 26 Jul 2024" in text.text
    assert text.text.endswith("Hello!<|eot_id|>")


def test_marks_of_a_template_are_taken_as_they_are() -> None:
    marked = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n"
        "{% if m.role == 'assistant' %}{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}"
        "{% else %}{{ m.content }}<|im_end|>{% endif %}\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    tokenizer = family_tokenizer("smollm2", marked)
    form = PromptForm(tokenizer, choose_prompt("auto", tokenizer, ["all"], TODAY))
    text = form.encode([Instruction("Hi.", "", "Hello!")])[0]
    assert not isinstance(text, str)
    assert [text.text[begin:end] for begin, end in text.spans] == ["Hello!<|im_end|>"]


def test_qwen3_keeps_the_thoughts_of_earlier_turns_except_where_only_the_last_is_learned() -> None:
    tokenizer = family_tokenizer("qwen3", vendors.qwen3_chat_template)
    row = Conversation(
        (
            Message("user", "1?"),
            Message("assistant", "1."),
            Message("user", "2?"),
            Message("assistant", "2."),
        )
    )
    for turns, thoughts in (("all", 2), ("last", 1)):
        spec = choose_prompt("auto", tokenizer, [turns], TODAY)  # type: ignore[list-item]
        text = PromptForm(tokenizer, spec).encode([row])[0]
        assert not isinstance(text, str)
        assert text.text.count("<think>") == thoughts


def test_a_row_that_the_template_cannot_take_is_named_and_the_others_are_kept() -> None:
    refuses = CHATML.replace(
        "{% for m in messages %}",
        "{% for m in messages %}{% if 'x' in m.content %}{{ raise_exception('no x') }}{% endif %}",
    )
    tokenizer = family_tokenizer("smollm2", refuses)
    form = PromptForm(tokenizer, choose_prompt("auto", tokenizer, ["all"], TODAY))
    bad, good = form.encode([Instruction("x", "", "y"), Instruction("a", "", "b")])
    assert isinstance(bad, str)
    assert "no x" in bad
    assert not isinstance(good, str)
