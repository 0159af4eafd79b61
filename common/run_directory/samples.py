"""Answers of versions to held-out rows, as a run directory keeps them: `samples.jsonl`.

`coordinator/storage/samples.py` appends to the file; it is read there again, and by
`common/run_directory/recorded_run.py`.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from common.errors import RunError
from common.files import read_jsonl
from common.protocol.versions import SampleAnswer

FILE = "samples.jsonl"
MAX_SHOWN = 100  # every viewer reads them all, twice a second


def read_samples(directory: Path) -> tuple[SampleAnswer, ...]:
    """Read the answers, oldest first, if there are any; raise `RunError` for a damaged file."""
    path = directory / FILE
    try:
        lines = [SampleAnswer.model_validate(line) for line in read_jsonl(path)]
    except (OSError, ValueError):  # of JSON, of UTF-8, of a field
        raise RunError(f"{path} is damaged", "remove it: only past samples are lost") from None
    return tuple({(line.version, line.asked): line for line in lines}.values())


def select_shown(samples: Iterable[SampleAnswer]) -> tuple[SampleAnswer, ...]:
    """Return the answers for viewers: those of version 0, and as many of the newest as fit."""
    ordered = sorted(samples, key=lambda sample: sample.version)
    base = [sample for sample in ordered if sample.version == 0][:MAX_SHOWN]
    room = MAX_SHOWN - len(base)
    return (*base, *ordered[len(base) :][-room:]) if room else tuple(base)
