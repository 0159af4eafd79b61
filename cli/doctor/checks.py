"""Checks of `fccl doctor`, each run by itself and within a time limit.

A check is a function from a `CheckContext` to a `CheckResult`. It writes nothing to a server, and
may raise an `FcclError`, which becomes a failed check. To add one, append it to
`cli.doctor.command.CHECKS`.
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
class CheckResult:
    """Result of a check: one line of the report.

    Attributes:
        name: What was checked.
        status: `warn` if a run would work all the same, `fail` if it would not.
        text: What was found.
        remedy: What to do about it; empty if all is well.
    """

    name: str
    status: Status
    text: str
    remedy: str = ""


@dataclass(frozen=True)
class CheckContext:
    """What the checks examine.

    Attributes:
        config: The configuration of the federation.
        side: The side of this machine: a worker's user may do less, and needs less.
        data: File or folder of rows to check instead of the configured one.
        cache: Folder of base models.
        site: The site for which a worker of this machine takes tasks.
    """

    config: FederationConfig
    side: Side
    data: Path | None
    cache: Path
    site: str = LOCAL_SITE


@dataclass(frozen=True)
class CheckSpec:
    """A check to run.

    Attributes:
        name: Name in the report if the check does not end.
        run: The check.
        limit_s: Time after which the check is given up.
    """

    name: str
    run: Callable[[CheckContext], CheckResult]
    limit_s: float = 15.0


def run_checks(
    checks: Sequence[CheckSpec],
    context: CheckContext,
    on_start: Callable[[str], None] = lambda name: None,
) -> Iterator[CheckResult]:
    """Run checks one after another; none can hide another by raising or by hanging.

    Args:
        checks: The checks to run.
        context: What they examine.
        on_start: Called with the name of each check before it starts.
    """
    for check in checks:
        on_start(check.name)
        yield _run_within_limit(check, context)


def _run_within_limit(check: CheckSpec, context: CheckContext) -> CheckResult:
    results: list[CheckResult] = []

    def run() -> None:
        results.append(_run(check, context))

    # A check that hangs is left behind: a daemon thread does not keep the process from ending.
    thread = threading.Thread(target=run, name=f"doctor-{check.name}", daemon=True)
    thread.start()
    thread.join(check.limit_s)
    if results:
        return results[0]
    text = f"no result within {check.limit_s:.0f} s"
    remedy = "check whether this machine, or the server that it asked, hangs"
    return CheckResult(check.name, "fail", text, remedy)


def _run(check: CheckSpec, context: CheckContext) -> CheckResult:
    try:
        return check.run(context)
    except FcclError as error:
        return CheckResult(check.name, "fail", error.what, error.remedy)
    except Exception as error:  # a check that breaks must not end the others
        text = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        return CheckResult(check.name, "fail", text, "this is a bug in fccl: please report it")
