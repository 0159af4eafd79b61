"""A preference pair: what value alignment ("va", DPO) learns from.

In the data path: made by `learning/data/rows` from a file or a hub data set; partitioned by
`learning/data/shards`; tokenised where a client trains.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Preference:
    """Two answers to one prompt, of which one is the better.

    Attributes:
        prompt: The user's words, without any template.
        chosen: The better answer.
        rejected: The other one; never the same text.
        topic: A label to partition by, empty where the data has none.
    """

    prompt: str
    chosen: str
    rejected: str
    topic: str = ""
