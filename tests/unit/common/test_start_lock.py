"""Two starts in one directory: one goes on, the other is refused; a killed one blocks nobody."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.errors import RunError
from common.start_lock import StartLock, only_start

HOLD = (
    "import sys; from pathlib import Path; from common.start_lock import StartLock\n"
    "StartLock(Path(sys.argv[1])).acquire(); print('held', flush=True); sys.stdin.read()"
)


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that is starting in `tmp_path / "run"`."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "run")]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_start_is_refused_until_the_first_is_killed(
    tmp_path: Path, holder: subprocess.Popen[str]
) -> None:
    with pytest.raises(RunError, match="another start is at work in") as caught:
        StartLock(tmp_path / "run").acquire()
    assert f"process {holder.pid} on " in str(caught.value)
    assert caught.value.exit_code == 7 and "\n" not in str(caught.value)
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with only_start(tmp_path / "run"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_what_is_in_use_can_be_shared_but_not_replaced(tmp_path: Path) -> None:
    first, second, third = (StartLock(tmp_path / "run") for _ in range(3))
    first.acquire()
    with pytest.raises(RunError, match="another start"):
        second.acquire(shared=True)
    first.share()
    second.acquire(shared=True)
    with pytest.raises(RunError, match="is in use"):
        third.acquire()
    first.release()
    with pytest.raises(RunError, match="is in use"):
        third.acquire()
    second.release()
    third.acquire()
    third.release()
    assert list(tmp_path.iterdir()) == []


def test_all_names_of_a_directory_have_the_same_lock(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "run")
    with only_start(tmp_path / "run"), pytest.raises(RunError, match="another start"):
        StartLock(tmp_path / "x" / ".." / "link").acquire()


def test_a_file_system_without_locks_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(fd: int, kind: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    for shared in (False, True):
        with pytest.raises(RunError, match=r"no file locks.*local disk"):
            StartLock(tmp_path / "run").acquire(shared=shared)
