"""Rows from records: finds a row's fields in a record, under the names that data sets give them.

Pure functions from a record and a mapping to a row of one kind. The mapping says in which column a
field is, `{"text": "review_body", "label": "stars"}`; the other fields are looked up under the
names in `COLUMN_NAMES`, in lower or upper case. They are those of well-known data sets:
tatsu-lab/alpaca, HuggingFaceH4/ultrafeedback_binarized, Anthropic/hh-rlhf, stanfordnlp/imdb and
stanfordnlp/sst2, and the forms that trl documents.

In the data path: records come from `learning.data.tables` or `learning.data.hub_data`;
`learning.data.rows` collects the rows.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from learning.data.row_types import MAX_CHARS, Instruction, LabelledText, PreferencePair

ColumnMapping = Mapping[str, str]
"""Fields of a row to columns of the source."""

MAX_LABEL = 100
"""Longest name of a class, in characters; a longer one is a text in the wrong column."""

COLUMN_NAMES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "sft": {
        "instruction": ("instruction", "prompt", "question", "query"),
        "input": ("input", "context"),
        "output": ("output", "completion", "response", "answer"),
        "messages": ("messages", "conversations", "conversation"),
        "topic": ("topic",),
    },
    "va": {
        "prompt": ("prompt", "instruction", "question", "query"),
        "chosen": ("chosen",),
        "rejected": ("rejected",),
        "topic": ("topic",),
    },
    "cls": {
        "text": ("text", "sentence", "review", "content"),
        "label": ("label", "labels", "sentiment", "category", "class"),
    },
}
"""Column names by kind and field, the likeliest first."""

_SPEAKERS = {
    "user": "user", "human": "user", "prompter": "user",
    "assistant": "assistant", "gpt": "assistant", "model": "assistant", "bot": "assistant",
    "system": "system",
}  # fmt: skip
_ANSWER, _QUESTION = "\n\nAssistant:", "\n\nHuman:"


class UnusableRow(Exception):
    """A record that cannot become a row; says why in a few words, without the record's text."""


def known_columns(kind: str, columns: ColumnMapping) -> frozenset[str]:
    """Return every column name that can hold a field of this kind, in lower case."""
    known = {name for names in COLUMN_NAMES[kind].values() for name in names}
    return frozenset(known | {name.lower() for name in columns.values()})


def parse_instruction(record: Mapping[str, object], columns: ColumnMapping) -> Instruction:
    """Return an instruction with its answer, or the first exchange of a conversation.

    Raises:
        UnusableRow: The record has neither, or a field that is empty, too long or not text.
    """

    def find(field: str) -> tuple[str, object]:
        return _find("sft", field, record, columns)

    (task_name, task), (answer_name, answer) = find("instruction"), find("output")
    turns_name, turns = find("messages")
    context = ""
    direct = bool({"instruction", "output"} & columns.keys()) or None not in (task, answer)
    if "messages" in columns or (turns is not None and not direct):
        task, answer = _first_exchange(turns_name, _turns(turns_name, turns))
    elif isinstance(task, list) and isinstance(answer, list):
        task, answer = _first_exchange(task_name, _turns(task_name, task + answer))
    else:
        context = _optional(*find("input"))
    return Instruction(
        _text(task_name, task), context, _text(answer_name, answer), _optional(*find("topic"))
    )


def parse_preference(record: Mapping[str, object], columns: ColumnMapping) -> PreferencePair:
    """Return a preference pair, from texts or from conversations of one exchange.

    Without a prompt column, the prompt is the user's turn, or, in texts of Anthropic's form, the
    beginning that both texts share, earlier turns included.

    Raises:
        UnusableRow: A part is missing, empty, too long or not text; or the answers are equal.
    """
    prompt_name, prompt = _find("va", "prompt", record, columns)
    chosen_name, chosen = _find("va", "chosen", record, columns)
    rejected_name, rejected = _find("va", "rejected", record, columns)
    if isinstance(prompt, list):
        prompt = _only_question(prompt_name, _turns(prompt_name, prompt))
    if isinstance(chosen, list) and isinstance(rejected, list):
        chosen_prompt, chosen = _last_answer(chosen_name, _turns(chosen_name, chosen))
        rejected_prompt, rejected = _last_answer(rejected_name, _turns(rejected_name, rejected))
        if chosen_prompt != rejected_prompt:
            raise UnusableRow(f"{chosen_name} and {rejected_name} answer different prompts")
        prompt = chosen_prompt if prompt is None else prompt
    elif prompt is None and isinstance(chosen, str) and isinstance(rejected, str):
        prompt, chosen, rejected = _dialogues(chosen, rejected)
    topic = _optional(*_find("va", "topic", record, columns))
    question = _text(prompt_name, prompt)
    better, worse = _text(chosen_name, chosen), _text(rejected_name, rejected)
    if better.strip() == worse.strip():
        raise UnusableRow("chosen and rejected are equal")
    return PreferencePair(question, better, worse, topic)


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
    text = _text(*_find("cls", "text", record, columns))
    name, value = _find("cls", "label", record, columns)
    if isinstance(value, float) and value.is_integer():  # pandas stores integers with gaps so
        value = int(value)
    label = _text(name, str(value) if isinstance(value, int) else value).strip()
    if len(label) > MAX_LABEL:
        raise UnusableRow(f"{name} has {len(label)} characters, more than {MAX_LABEL}: not a class")
    if labels and label not in labels:
        raise UnusableRow(f"{name} is {label!r}, which is none of the declared labels")
    return LabelledText(text, label)


def _find(
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


def _text(name: str, value: object) -> str:
    if value is None:
        raise UnusableRow(f"{name} is missing")
    text = _optional(name, value)
    if not text.strip():
        raise UnusableRow(f"{name} is empty")
    return text


def _optional(name: str, value: object) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise UnusableRow(f"{name} is not text")
    if len(value) > MAX_CHARS:
        raise UnusableRow(f"{name} has {len(value)} characters, more than {MAX_CHARS}")
    if not value.isascii() and any("\ud800" <= c <= "\udfff" for c in value):
        raise UnusableRow(f"{name} is not valid UTF-8 text")  # a lone surrogate, or a stray byte
    return value


_Turns = list[tuple[str, object]]


def _turns(name: str, value: object) -> _Turns:
    """Return speaker and text of each turn, in OpenAI's or ShareGPT's form, except the system's."""
    if not isinstance(value, list):
        raise UnusableRow(f"{name} is not a list of messages")
    return [turn for turn in _spoken(name, value) if turn[0] != "system"]


def _spoken(name: str, value: list[object]) -> Iterator[tuple[str, object]]:
    for message in value:
        if not isinstance(message, dict):
            raise UnusableRow(f"{name} is not a list of messages")
        speaker = message.get("role") or message.get("from")
        if not isinstance(speaker, str) or speaker not in _SPEAKERS:
            raise UnusableRow(
                f"{name} has a message that is neither the user's nor the assistant's"
            )
        text = message.get("content")
        yield _SPEAKERS[speaker], message.get("value") if text is None else text


def _first_exchange(name: str, turns: _Turns) -> tuple[object, object]:
    if [speaker for speaker, _ in turns[:2]] != ["user", "assistant"]:
        raise UnusableRow(f"{name} does not begin with the user and an answer")
    return turns[0][1], turns[1][1]


def _only_question(name: str, turns: _Turns) -> object:
    if [speaker for speaker, _ in turns] != ["user"]:
        raise UnusableRow(f"{name} is not one message of the user")
    return turns[0][1]


def _last_answer(name: str, turns: _Turns) -> tuple[object, object]:
    """Return the user's question, or None, and the answer.

    Longer conversations are refused: an answer late in one fits no single prompt.
    """
    match [speaker for speaker, _ in turns]:
        case ["assistant"]:
            return None, turns[0][1]
        case ["user", "assistant"]:
            return turns[0][1], turns[1][1]
    raise UnusableRow(f"{name} is not one exchange of user and assistant")


def _dialogues(chosen: str, rejected: str) -> tuple[str, str, str]:
    """Return prompt and both answers of two dialogues with turns of Human: and Assistant:."""
    pairs = enumerate(zip(chosen, rejected, strict=False))
    shared = next((i for i, (a, b) in pairs if a != b), min(len(chosen), len(rejected)))
    cut = chosen[:shared].rfind(_ANSWER)
    if cut < 0:
        raise UnusableRow(
            "prompt is missing, and chosen and rejected are no dialogues that share it"
        )
    prompt = chosen[:cut].removeprefix(_QUESTION).strip()
    better, worse = chosen[cut + len(_ANSWER) :], rejected[cut + len(_ANSWER) :]
    if _QUESTION in better or _QUESTION in worse:
        raise UnusableRow("chosen and rejected differ before their last answer")
    return prompt, better.strip(), worse.strip()
