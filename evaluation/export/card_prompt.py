"""Paragraph of a model card about the prompt form: how to ask, and where an answer ends."""

from __future__ import annotations

from common.run_directory.recorded_run import RecordedRun
from evaluation.export.card_data import CardData, format_code
from learning.prompts import alpaca


def build_prompt_note(card: CardData) -> str:
    """Return what the model was trained to read and to learn; it is not one that classifies."""
    first, *others = map(format_code, card.written.ends)
    end = f"An answer ends with {first}"
    end += f"; {others[0]} ends one as well." if others else "."
    return (
        f"Prompts have {_form(card.run)}; the tokenizer's chat template writes them. {end}"
        " `generation_config.json` says so, and nothing else: answers are greedy, and the base"
        f" model's settings for sampling are not taken over. {_learned(card.run)}"
    )


def _form(run: RecordedRun) -> str:
    if is_alpaca(run):
        return (
            "the Alpaca form (an input to a task is the key `input` of the user's message, beside"
            " `instruction`)"
        )
    if run.config.model.prompt in ("auto", "chat"):
        return "the base model's chat form"
    return "the form of a chat template that the federation brought"


def is_alpaca(run: RecordedRun) -> bool:
    """Return whether a run's prompts have the Alpaca form."""
    forms = {alpaca.chat_template(begins) for begins in (False, True)}
    return run.prompt is None or run.prompt.template in forms


def _learned(run: RecordedRun) -> str:
    turns = {phase.turns for phase in run.config.phase if phase.objective == "sft"}
    if not turns or turns == {"last"}:
        which = "Of a conversation, only the assistant's last turn was learned"
    elif turns == {"all"}:
        which = "Of a conversation, every turn of the assistant was learned"
    else:
        which = "Of a conversation, the assistant's last turn or all of its turns were learned"
    return f"{which}, its end included."
