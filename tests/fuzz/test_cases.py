"""Inputs that failed once are refused in the proper way; `make fuzz` looks for others."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.processes import CASES
from tests.fuzz.registry import TARGETS
from tests.fuzz.target import attempt

COSTLY = {"adapter-folder", "chat-template"}  # they import torch
FOUND = sorted(path.name for path in CASES.iterdir() if path.is_dir())


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n in COSTLY else n for n in FOUND]
)
def test_every_input_that_was_found_is_accepted_or_refused_in_one_line(
    tmp_path: Path, name: str
) -> None:
    reader = TARGETS[name].make(tmp_path)
    for case in sorted((CASES / name).glob("*.bin")):
        try:
            attempt(reader, case.read_bytes())
        except Exception as error:
            pytest.fail(f"{name}/{case.name}: {type(error).__name__}: {error}")
