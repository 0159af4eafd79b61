"""Types of `fccl doctor`, and the runner that isolates one check from the others.

A check is a function from a `CheckContext` to a `CheckResult`. It must not write to a server; an
`FcclError` that it raises becomes a failed check. To add one, append it to
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
    """Result of a check: one line of the report."""

    name: str
    status: Status  # `warn` if a run would work all the same, `fail` if it would not
    text: str
    remedy: str = ""  # empty if all is well


@dataclass(frozen=True)
class CheckContext:
    """Configuration and folders to check."""

    config: FederationConfig
    side: Side  # of this machine; a worker has fewer rights, and needs fewer
    data: Path | None  # file or folder of rows to check instead of the configured one
    cache: Path  # folder of base models
    site: str = LOCAL_SITE  # for which a worker of this machine takes tasks
    settings: Path | None = None  # worker.toml of that worker


@dataclass(frozen=True)
class CheckSpec:
    """Check with its time limit."""

    name: str  # for the report if the check does not end
    run: Callable[[CheckContext], CheckResult]
    limit_s: float = 15.0


def run_checks(
    checks: Sequence[CheckSpec],
    context: CheckContext,
    on_start: Callable[[str], None] = lambda name: None,
) -> Iterator[CheckResult]:
    """Run checks one after another, whether or not one of them raises or hangs.

    `on_start` is called with the name of each check before it starts.
    """
    for check in checks:
        on_start(check.name)
        yield _run_within_limit(check, context)


def _run_within_limit(check: CheckSpec, context: CheckContext) -> CheckResult:
    results: list[CheckResult] = []

    def run() -> None:
        results.append(_run(check, context))

    # A check that hangs is abandoned: a daemon thread does not keep the process from ending.
    thread = threading.Thread(target=run, name=f"doctor-{check.name}", daemon=True)
    thread.start()
    thread.join(check.limit_s)
    if results:
        return results[0]
    text = f"no result within {check.limit_s:.0f} s"
    remedy = "check whether this machine, or the server that was checked, hangs"
    return CheckResult(check.name, "fail", text, remedy)


def _run(check: CheckSpec, context: CheckContext) -> CheckResult:
    try:
        return check.run(context)
    except FcclError as error:
        return CheckResult(check.name, "fail", error.what, error.remedy)
    except Exception as error:  # a check that breaks must not end the others
        text = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        return CheckResult(check.name, "fail", text, "this is a bug in fccl: please report it")
