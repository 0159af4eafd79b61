"""Parser of rows: finds the fields of a row in a record under their common column names.

Pure functions from a record and a mapping to a row of one kind. The mapping says in which column a
field is, `{"text": "review_body", "label": "stars"}`; the other fields are looked up under the
names in `COLUMN_NAMES`, in lower or upper case. They are those of well-known data sets:
tatsu-lab/alpaca, HuggingFaceH4/ultrafeedback_binarized, Anthropic/hh-rlhf, Open-Orca/OpenOrca,
stanfordnlp/imdb and stanfordnlp/sst2, and the forms that trl and LLaMA-Factory document.

In the data path: records come from `learning.data.tables` or `learning.data.hub_data`, turns of
conversations from `learning.data.message_parser`; `learning.data.rows` collects the rows.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Literal

from learning.data.field_values import (
    MEDIA_COLUMNS,
    OnOmission,
    UnusableRow,
    ignore_omission,
    optional_text,
    refuse_media,
    require_text,
)
from learning.data.message_parser import (
    check_size,
    is_conversation,
    join_parts,
    parse_history,
    parse_messages,
    parse_tools,
    up_to_last_answer,
)
from learning.data.row_types import Conversation, Instruction, LabelledText, Message
from learning.prompts.alpaca import split_task

ColumnMapping = Mapping[str, str]
"""Fields of a row to columns of the source."""

MAX_LABEL = 100
"""Longest name of a class, in characters; a longer one is a text in the wrong column."""

CONVERSATION_COLUMNS = ("messages", "conversations", "conversation", "dialogue", "dialog", "turns")
_INPUTS = ("input", "context")
_SHARED: Mapping[str, tuple[str, ...]] = {
    "system": ("system", "system_prompt", "system_message"),
    "history": ("history",),
    "tools": ("tools", "functions"),
    "topic": ("topic",),
}
COLUMN_NAMES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "sft": {
        "instruction": ("instruction", "prompt", "question", "query"),
        "input": _INPUTS,
        "output": ("output", "completion", "response", "answer"),
        "messages": CONVERSATION_COLUMNS,
        **_SHARED,
    },
    "va": {
        "prompt": ("prompt", "instruction", "question", "query"),
        "chosen": ("chosen", "preferred_output"),
        "rejected": ("rejected", "non_preferred_output"),
        **_SHARED,
    },
    "kto": {
        "prompt": ("prompt", "instruction", "question", "query"),
        "completion": ("completion", "response", "output", "answer"),
        "label": ("label", "rating", "thumb", "thumbs", "thumbs_up", "feedback"),
        "chosen": ("chosen", "preferred_output"),  # of a pair, which becomes two ratings
        "rejected": ("rejected", "non_preferred_output"),
        **_SHARED,
    },
    "cls": {
        "text": ("text", "sentence", "review", "content"),
        "label": ("label", "labels", "sentiment", "category", "class"),
    },
}
"""Column names by kind and field, the likeliest first."""

Turns = tuple[Message, ...]
FindField = Callable[[str], tuple[str, object]]
"""field → its column (for messages) and its value"""


def known_columns(kind: str, columns: ColumnMapping) -> frozenset[str]:
    """Return every column name that is read for this kind, in lower case.

    These include columns of images, videos and sounds, because rows with such content are refused,
    and columns that complete the prompt of a judged answer.
    """
    known = {name for names in COLUMN_NAMES[kind].values() for name in names}
    if kind != "cls":
        known |= MEDIA_COLUMNS | {*CONVERSATION_COLUMNS, *_INPUTS}
    return frozenset(known | {name.lower() for name in columns.values()})


def parse_instruction(
    record: Mapping[str, object], columns: ColumnMapping, on_omission: OnOmission = ignore_omission
) -> Instruction | Conversation:
    """Return an instruction with its answer, or all turns of a conversation.

    An instruction with a system prompt, earlier exchanges or tools becomes a conversation. So do a
    prompt and a completion that are lists of messages.

    Args:
        on_omission: Called with each kind of content that is left out.

    Raises:
        UnusableRow: A field is missing, empty, too long or not text.
    """
    refuse_media(record)

    def find(field: str) -> tuple[str, object]:
        return find_field("sft", field, record, columns)

    topic, tools = optional_text(*find("topic")), parse_tools(*find("tools"))
    history = parse_history(*find("history"), on_omission)
    name, turns = _turns(find, columns, on_omission)
    if turns is None:
        question = require_text(*find("instruction"))
        context, answer = optional_text(*find("input")), require_text(*find("output"))
        if not (tools or history or has_system(find)):
            return Instruction(question, context, answer, topic)
        question = join_input(question, context)
        turns = (Message("user", question), Message("assistant", answer))
    turns = with_context(find, history, turns, on_omission)
    turns = up_to_last_answer(name, turns, on_omission)
    check_size(name, turns)
    return Conversation(turns, tools, topic)


def _turns(
    find: FindField, columns: ColumnMapping, on_omission: OnOmission
) -> tuple[str, Turns | None]:
    """Return the column and the turns of a conversation; None for an instruction of texts."""
    (task_name, task), (answer_name, answer) = find("instruction"), find("output")
    name, value = find("messages")
    direct = bool({"instruction", "output"} & columns.keys())
    listed = is_conversation(value)
    missing = value is not None and None in (task, answer)
    if "messages" in columns or (not direct and (listed or missing)):
        return name, parse_messages(name, value, on_omission)
    if not isinstance(task, list) and not isinstance(answer, list):
        return task_name, None
    before = _side(task_name, task, "user", on_omission)
    return task_name, before + _side(answer_name, answer, "assistant", on_omission)


def _side(
    name: str, value: object, role: Literal["user", "assistant"], on_omission: OnOmission
) -> Turns:
    if isinstance(value, list):
        return parse_messages(name, value, on_omission)
    return (Message(role, require_text(name, value)),)


def join_input(question: str, context: str) -> str:
    """Return an instruction and its input as one text, joined as in the prompt form."""
    return "\n\n".join(filter(None, split_task(question, context))) if context else question


def has_system(find: FindField) -> bool:
    """Return whether a record has a system prompt in a column of its own."""
    return bool(join_parts(*find("system")).strip())


def with_context(find: FindField, history: Turns, turns: Turns, on_omission: OnOmission) -> Turns:
    """Return turns preceded by the system prompt and the earlier turns of their record."""
    first = next((i for i, turn in enumerate(turns) if turn.role != "system"), len(turns))
    turns = (*turns[:first], *history, *turns[first:])
    name, system = find("system")
    if not has_system(find):
        return turns
    prompt = join_parts(name, system)
    said = [turn.content.strip() for turn in turns if turn.role == "system"]
    if not said:
        return (Message("system", prompt), *turns)
    if prompt.strip() not in said:
        on_omission(f"{name} left out, since the turns have a system prompt")
    return turns


def parse_labelled_text(
    record: Mapping[str, object], columns: ColumnMapping, labels: Collection[str] = ()
) -> LabelledText:
    """Return a text and its class; a class that is a number or a truth value becomes its text.

    Args:
        labels: The declared classes; empty for any.

    Raises:
        UnusableRow: The text or the label is missing or cannot be used, or the label is not one of
            `labels`.
    """
    text = require_text(*find_field("cls", "text", record, columns))
    name, value = find_field("cls", "label", record, columns)
    if isinstance(value, float) and value.is_integer():  # pandas stores integers with gaps so
        value = int(value)
    label = require_text(name, str(value) if isinstance(value, int) else value).strip()
    if len(label) > MAX_LABEL:
        raise UnusableRow(f"{name} has {len(label)} characters, more than {MAX_LABEL}: not a class")
    if labels and label not in labels:
        raise UnusableRow(f"{name} is {label!r}, which is none of the declared labels")
    return LabelledText(text, label)


def find_field(
    kind: str, field: str, record: Mapping[str, object], columns: ColumnMapping
) -> tuple[str, object]:
    """Return the column (for messages) and the value of a field; None if the record has none."""
    if field in columns:
        return columns[field], record.get(columns[field])
    for name in COLUMN_NAMES[kind][field]:
        if record.get(name) is not None:
            return name, record[name]
    lowered = {name.lower(): name for name, value in record.items() if value is not None}
    for name in COLUMN_NAMES[kind][field]:
        if name in lowered:
            return lowered[name], record[lowered[name]]
    return field, None
