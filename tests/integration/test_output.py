"""Output that cannot be written or encoded ends no command, and files are for their owner alone."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from cli.console import can_draw
from tests.support.processes import SCRIPT

ROW = '{{"instruction": "🙂👩‍👧 第 {0} 个 مرحبا", "output": "颜色 red 🎉 שלום {0}"}}\n'
PLAN = """\
[run]
name = "t"
dir = "a b"
[model]
name = "offline:gpt2-micro"
max_length = 128
[data]
sft = "emoji.jsonl"
clients = 2
[[phase]]
versions = 1
local_steps = 1
batch_size = 4
[samples]
prompts = 0
"""


def run(*command: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
    settings: dict[str, Any] = {"capture_output": True, "umask": 0, **options}
    return subprocess.run([SCRIPT, *command], check=False, **settings)


def test_a_pipe_whose_reader_has_gone_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = run("--help", capture_output=False, stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_disk_as_standard_output_has_an_exit_code_of_its_own(unbuffered: str) -> None:
    variables = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    with Path("/dev/full").open("wb") as full:
        done = run(
            "--help", capture_output=False, stdout=full, stderr=subprocess.PIPE, env=variables
        )
    assert (done.returncode, done.stderr) == (13, b"")


def test_closed_standard_streams_are_no_error(tmp_path: Path) -> None:
    command = f"exec '{SCRIPT}' init '{tmp_path}/f.toml' <&- >&- 2>&-"
    assert subprocess.run(["sh", "-c", command], check=False).returncode == 0
    assert (tmp_path / "f.toml").read_text(encoding="utf-8").startswith("#")


def test_a_terminal_that_cannot_move_its_cursor_gets_no_screen() -> None:
    assert [can_draw({"TERM": term}) for term in ("", "dumb", "unknown", "xterm")] == [
        False, False, False, True,
    ]  # fmt: skip
    assert not can_draw({})


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_demo_in_ascii_ends_well_and_leaves_private_files(
    tmp_path: Path, model_cache: Path
) -> None:
    (tmp_path / "emoji.jsonl").write_text("".join(map(ROW.format, range(40))), encoding="utf-8")
    (tmp_path / "f.toml").write_text(PLAN, encoding="utf-8")
    variables = {**os.environ, "PYTHONIOENCODING": "ascii", "FCCL_CACHE": str(model_cache)}
    done = run("demo", "--config", "f.toml", "--plain", cwd=tmp_path, env=variables)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.isascii() and b"fccl tui --replay 'a b/t'" in done.stdout
    report = tmp_path / "a b" / "t" / "report" / "report.md"
    assert report.read_text(encoding="utf-8")
    check_private(tmp_path / "a b")
    exported = run("export", "a b/t", "out", cwd=tmp_path, env=variables, umask=0o022)
    assert exported.returncode == 0, exported.stderr
    out = [tmp_path / "out", *(tmp_path / "out").rglob("*")]
    modes = {(path.is_dir(), stat.S_IMODE(path.stat().st_mode)) for path in out}
    assert modes == {(True, 0o755), (False, 0o644)}
    assert (tmp_path / "a b").stat().st_mode & 0o077 == 0


def check_private(folder: Path) -> None:
    """Check that nobody but the owner can use a folder, nor anything in it."""
    paths = [folder, *folder.rglob("*")]
    assert len(paths) > 20
    assert [path for path in paths if path.lstat().st_mode & 0o077 and not path.is_symlink()] == []
