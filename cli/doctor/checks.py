"""What `fccl doctor` looks at, and how: each check by itself, within a time.

A check is a function from the situation to a `Check`. It writes nothing to a server, and may
raise an `FcclError`, which becomes a failed check. To add one, append it to `cli.doctor.command.CHECKS`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from common.config.config import FederationConfig
from common.errors import FcclError
from common.protocol.naming import LOCAL_SITE

Status = Literal["ok", "warn", "fail"]
Side = Literal["coordinator", "worker"]


@dataclass(frozen=True)
class Check:
    """One line of the report.

    Attributes:
        name: What was looked at.
        status: `warn` where a run would go on, `fail` where it would not.
        text: What was found.
        remedy: What to do about it; empty where all is well.
    """

    name: str
    status: Status
    text: str
    remedy: str = ""


@dataclass(frozen=True)
class Situation:
    """What the checks look at.

    Attributes:
        config: Of the federation.
        side: Whose view is taken: a worker's user may do less, and needs less.
        data: A file or folder of rows to look at instead of the configured one.
        cache: Where base models are kept.
        site: As which site a worker of this machine takes tasks.
    """

    config: FederationConfig
    side: Side
    data: Path | None
    cache: Path
    site: str = LOCAL_SITE


@dataclass(frozen=True)
class Examination:
    """A check before it is made.

    Attributes:
        name: For its line, if it does not end.
        look: Makes it.
        limit_s: After which it is given up.
    """

    name: str
    look: Callable[[Situation], Check]
    limit_s: float = 15.0


def examine(
    examinations: Sequence[Examination],
    situation: Situation,
    begin: Callable[[str], None] = lambda name: None,
) -> Iterator[Check]:
    """Make the checks, one after another; none can hide another by raising or by hanging.

    Args:
        examinations: Which.
        situation: What they look at.
        begin: Told the name of each before it begins.
    """
    for examination in examinations:
        begin(examination.name)
        yield _within(examination, situation)


def _within(examination: Examination, situation: Situation) -> Check:
    found: list[Check] = []

    def look() -> None:
        found.append(_looked(examination, situation))

    # One that hangs is left behind: a daemon, it does not keep the process from ending.
    thread = threading.Thread(target=look, name=f"doctor-{examination.name}", daemon=True)
    thread.start()
    thread.join(examination.limit_s)
    if found:
        return found[0]
    text = f"no result within {examination.limit_s:.0f} s"
    return Check(examination.name, "fail", text, "see whether this machine or what it asks hangs")


def _looked(examination: Examination, situation: Situation) -> Check:
    try:
        return examination.look(situation)
    except FcclError as error:
        return Check(examination.name, "fail", error.what, error.remedy)
    except Exception as error:  # a check that breaks must not end the others
        text = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        return Check(examination.name, "fail", text, "this is a mistake in fccl: report it")
