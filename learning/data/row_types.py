"""The three kinds of rows that a federation learns from.

`learning.data.row_parser` makes them from records of a file or a hub data set,
`learning.data.shards` partitions them over the clients, and an objective of
`learning.objectives.registry` tokenises them where a client trains.
"""

from __future__ import annotations

from dataclasses import dataclass

MAX_CHARS = 32_768
"""Longest accepted field, in characters: far above any useful row, far below a pasted file."""


@dataclass(frozen=True)
class Instruction:
    """An instruction and its answer: a row of supervised fine-tuning (kind `sft`).

    Attributes:
        input: What the instruction applies to; may be empty.
        output: The answer to learn.
        topic: A label to partition by; empty where the data has none.
    """

    instruction: str
    input: str
    output: str
    topic: str = ""


@dataclass(frozen=True)
class PreferencePair:
    """Two answers to one prompt, one better than the other: a row of DPO (kind `va`).

    Attributes:
        prompt: The user's words, without any template.
        chosen: The better answer.
        rejected: The worse answer; never the same text.
        topic: A label to partition by; empty where the data has none.
    """

    prompt: str
    chosen: str
    rejected: str
    topic: str = ""


@dataclass(frozen=True)
class LabelledText:
    """A text and its class: a row of classification (kind `cls`).

    Attributes:
        label: Name of the class; also what a partition is skewed by.
    """

    text: str
    label: str


Row = Instruction | PreferencePair | LabelledText
