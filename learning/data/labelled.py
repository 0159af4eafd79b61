"""A text and its class: what classification learns from.

In the data path: made by `learning/data/rows` from a file or a hub data set; partitioned by its
label in `learning/data/shards`; tokenised where a client trains.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Labelled:
    """One text of a known class.

    Attributes:
        text: What is classified.
        label: The name of its class; what a partition is skewed by.
    """

    text: str
    label: str
