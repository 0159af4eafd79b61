"""Libraries that the coordinator loads."""

from __future__ import annotations

import subprocess
import sys

LOADED = """
import sys
import coordinator.service, coordinator.metrics, coordinator.sites.credentials
print(*sorted({"torch", "transformers", "peft"} & sys.modules.keys()))
"""


def test_the_coordinator_loads_no_machine_learning_library() -> None:
    found = subprocess.run(
        [sys.executable, "-c", LOADED], capture_output=True, text=True, check=True, timeout=120
    )
    assert found.stdout.split() == []
