"""Paragraph of a model card about the prompt form and the end of an answer."""

from __future__ import annotations

from common.run_directory.recorded_run import RecordedRun
from evaluation.export.card_data import CardData, format_code
from learning.prompts import alpaca


def build_prompt_note(card: CardData) -> str:
    """Return the paragraph on the prompt form of a causal model."""
    first, *others = map(format_code, card.written.ends)
    end = f"An answer ends with {first}"
    end += f" or {others[0]}." if others else "."
    return (
        f"Prompts have {_form(card.run)}; the tokenizer's chat template writes them. {end}"
        " `generation_config.json` has this end and greedy decoding; the base model's settings for"
        f" sampling are not taken over. {_learned(card.run)}"
    )


def _form(run: RecordedRun) -> str:
    if is_alpaca(run):
        return (
            "the Alpaca form (an input to a task is the key `input` of the user's message, beside"
            " `instruction`)"
        )
    if run.config.model.prompt in ("auto", "chat"):
        return "the base model's chat form"
    return "the form of the chat template that the run's configuration names"


def is_alpaca(run: RecordedRun) -> bool:
    """Return whether a run's prompts have the Alpaca form."""
    forms = {alpaca.chat_template(begins) for begins in (False, True)}
    return run.prompt is None or run.prompt.template in forms


def _learned(run: RecordedRun) -> str:
    turns = {phase.turns for phase in run.config.phase if phase.objective == "sft"}
    if not turns or turns == {"last"}:
        which = "In a conversation, only the assistant's last turn was learned"
    elif turns == {"all"}:
        which = "In a conversation, every turn of the assistant was learned"
    else:
        which = "In a conversation, the assistant's last turn or all of its turns were learned"
    return f"{which}, including its end token."
