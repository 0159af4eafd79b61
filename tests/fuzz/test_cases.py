"""Inputs that failed once are refused in the proper way; `make fuzz` looks for others."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.processes import CASES
from tests.fuzz.registry import TARGETS
from tests.fuzz.target import attempt


def test_every_input_that_was_found_is_accepted_or_refused_in_one_line(tmp_path: Path) -> None:
    folders = sorted(path for path in CASES.iterdir() if path.is_dir())
    assert folders
    for folder in folders:
        own = tmp_path / folder.name
        own.mkdir()
        reader = TARGETS[folder.name].make(own)
        for case in sorted(folder.glob("*.bin")):
            try:
                attempt(reader, case.read_bytes())
            except Exception as error:
                pytest.fail(f"{folder.name}/{case.name}: {type(error).__name__}: {error}")
