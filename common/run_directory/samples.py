"""What versions said of held-out rows, as a run directory keeps it: `samples.jsonl`.

Written by `coordinator/storage/samples.py`, line by line; read again by `coordinator` and `recording`.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from common.errors import RunError
from common.files import read_jsonl
from common.protocol.records import SampleAnswer

FILE = "samples.jsonl"
MAX_SHOWN = 100  # every viewer reads all that is shown, twice a second


def read(directory: Path) -> tuple[SampleAnswer, ...]:
    """What a run directory holds, oldest first; nothing where no version was ever asked.

    Raises:
        RunError: The file is damaged.
    """
    path = directory / FILE
    try:
        lines = [SampleAnswer.model_validate(line) for line in read_jsonl(path)]
    except (OSError, ValueError):  # of JSON, of UTF-8, of a field
        raise RunError(f"{path} is damaged", "remove it: only past samples are lost") from None
    return tuple({(line.version, line.asked): line for line in lines}.values())


def shown(samples: Iterable[SampleAnswer]) -> tuple[SampleAnswer, ...]:
    """Those that viewers get, by version: all of the base, and as many of the newest as fit."""
    ordered = sorted(samples, key=lambda sample: sample.version)
    base = [sample for sample in ordered if sample.version == 0][:MAX_SHOWN]
    room = MAX_SHOWN - len(base)
    return (*base, *ordered[len(base) :][-room:]) if room else tuple(base)
