"""The work of a commit does not grow with the history of a run."""

from __future__ import annotations

from pathlib import Path

from common.files import TAIL_BYTES
from tests.support.long_history import federation_with_history, work_until_the_end


def test_commits_after_a_long_history_take_the_work_of_the_first_ones(
    tmp_path: Path, small_chunks: None
) -> None:
    new = work_until_the_end(federation_with_history(tmp_path / "new", 10))
    old = work_until_the_end(federation_with_history(tmp_path / "old", 150))
    assert old.instructions < 1.1 * new.instructions
    assert old.bytes_read < new.bytes_read + 20 * TAIL_BYTES
