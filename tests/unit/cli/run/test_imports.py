"""The process of `fccl coordinator` loads no machine learning library."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import sys
import cli.main, cli.run.coordinator
print(*({"torch", "transformers", "peft"} & set(sys.modules)))
"""


def test_the_modules_of_the_coordinator_command_load_no_torch() -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE], check=True, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() == ""
