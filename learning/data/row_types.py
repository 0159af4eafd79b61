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
    """An instruction and its answer: a row of supervised fine-tuning (kind `sft`)."""

    instruction: str
    input: str  # what the instruction applies to; may be empty
    output: str  # the answer to learn
    topic: str = ""  # label to partition by; empty where the data has none


@dataclass(frozen=True)
class PreferencePair:
    """Two answers to one prompt, one better than the other: a row of DPO (kind `va`)."""

    prompt: str  # the user's words, without any template
    chosen: str
    rejected: str  # never the same text as `chosen`
    topic: str = ""  # label to partition by; empty where the data has none


@dataclass(frozen=True)
class LabelledText:
    """A text and its class: a row of classification (kind `cls`)."""

    text: str
    label: str  # name of the class, by which a partition is also skewed


Row = Instruction | PreferencePair | LabelledText
