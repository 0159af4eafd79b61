"""Rows that a federation learns from: five types of four kinds.

`learning.data.row_parser` makes them from records of a file or a hub data set,
`learning.data.shards` partitions them over the clients, and an objective of
`learning.objectives.registry` tokenises them where a client trains, in the form that
`learning.prompts.form` gives them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

MAX_CHARS = 32_768
"""Longest accepted field, in characters: far above any useful row, far below a pasted file."""


@dataclass(frozen=True)
class Instruction:
    """An instruction and its answer: a row of supervised fine-tuning (kind `sft`)."""

    instruction: str
    input: str  # what the instruction applies to; may be empty
    output: str  # the answer to learn
    topic: str = ""  # label to partition by; empty where the data has none


Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str  # may be empty for a system turn, a tool's result, or a turn with tool calls
    tool_calls: str = ""  # of the assistant: JSON list of {"name", "arguments"}, or empty


@dataclass(frozen=True)
class Conversation:
    """A conversation; every answer of the assistant is learned: a row of kind `sft`."""

    messages: tuple[Message, ...]  # at least one by the assistant
    tools: str = ""  # JSON list of the tools' definitions; or empty
    topic: str = ""  # label to partition by; empty where the data has none

    @property
    def question(self) -> str:
        """The text of the turn before the last answer; empty if there is none."""
        return self.messages[self._last_answer() - 1].content if self._last_answer() else ""

    @property
    def answer(self) -> str:
        """The last answer of the assistant: its text, or its calls of tools."""
        last = self.messages[self._last_answer()]
        return last.content or last.tool_calls

    def before_answer(self) -> tuple[Message, ...]:
        """Return the turns before the last answer."""
        return self.messages[: self._last_answer()]

    def _last_answer(self) -> int:
        places = [i for i, turn in enumerate(self.messages) if turn.role == "assistant"]
        return places[-1]


@dataclass(frozen=True)
class PreferencePair:
    """Two answers to one prompt, one better than the other: a row of DPO (kind `va`)."""

    prompt: str | tuple[Message, ...]  # a turn of the user, or all turns before the answer
    chosen: str
    rejected: str  # never the same text as `chosen`
    topic: str = ""  # label to partition by; empty where the data has none
    tools: str = ""  # JSON list of the tools' definitions; or empty

    @property
    def question(self) -> str:
        """The text of the last turn before the answer."""
        return self.prompt if isinstance(self.prompt, str) else self.prompt[-1].content


@dataclass(frozen=True)
class RatedAnswer:
    """An answer that its reader liked or not: a row of KTO (kind `kto`)."""

    prompt: str | tuple[Message, ...]  # a turn of the user, or all turns before the answer
    completion: str
    good: bool
    topic: str = ""  # label to partition by; empty where the data has none
    tools: str = ""  # JSON list of the tools' definitions; or empty

    @property
    def question(self) -> str:
        """The text of the last turn before the answer."""
        return self.prompt if isinstance(self.prompt, str) else self.prompt[-1].content


@dataclass(frozen=True)
class LabelledText:
    """A text and its class: a row of classification (kind `cls`)."""

    text: str
    label: str  # name of the class, by which a partition is also skewed


Row = Instruction | Conversation | PreferencePair | RatedAnswer | LabelledText
