"""A disk that refuses any operation of a coordinator: one line, and the next start goes on."""

from __future__ import annotations

from itertools import cycle
from pathlib import Path

import pytest

from common.errors import ConfigError, DiskError, RunError
from tests.support.failing_disk import REFUSALS, FailingDisk
from tests.support.polled_federation import PolledFederation, check_complete


def run_operations(root: Path) -> int:
    """Return how many operations on files a run needs."""
    disk = FailingDisk(root)
    with pytest.MonkeyPatch.context() as patch:
        disk.install(patch)
        assert PolledFederation(root, keep_updates=True).serve().complete
    return disk.operations


def check_recovery(root: Path, first: int, number: int) -> None:
    """Let the disk refuse from one operation on, then repair it and check the run's end."""
    disk = FailingDisk(root, number, first)
    federation = None
    with pytest.MonkeyPatch.context() as patch:
        disk.install(patch)
        try:
            federation = PolledFederation(root, keep_updates=True)
            federation.serve()
        except (ConfigError, RunError) as error:  # a configuration that cannot be read is the first
            known = isinstance(error, DiskError | ConfigError) or "writable" in error.remedy
            assert known and str(root) in error.what and error.remedy, error
        disk.first = -1
        if federation is None and (root / "r").exists():
            return  # it was made, and only its name was not made durable: the user resumes it
        federation = federation or PolledFederation(root, keep_updates=True)
        outcome = federation.serve()
    check_complete(federation, outcome)


@pytest.mark.usefixtures("small_chunks")
def test_after_a_disk_that_refused_the_same_run_goes_on(tmp_path: Path) -> None:
    total = run_operations(tmp_path / "measured")
    points = (total * part // 4 + 20 for part in range(4))
    for number, first in zip(cycle(REFUSALS), points, strict=False):
        check_recovery(tmp_path / str(first), first, number)


@pytest.mark.slow
@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("part", range(4))
def test_whichever_operation_a_disk_refuses_the_same_run_goes_on(tmp_path: Path, part: int) -> None:
    total = run_operations(tmp_path / "measured")
    for number, first in zip(cycle(REFUSALS), range(part, total, 7), strict=False):
        check_recovery(tmp_path / str(first), first, number)
