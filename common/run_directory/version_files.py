"""Files of one version: `versions/000123/`, a PEFT adapter or a whole model.

`coordinator/storage/versions.py` writes them; `common/run_directory/recorded_run.py` reads them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors.numpy import load_file

from common.disk_errors import disk_errors
from common.protocol.tensors import Tensors

ADAPTER_FILES = ("adapter_model.safetensors", "adapter_config.json")
MODEL_FILES = ("model.safetensors", "config.json")  # where all parameters are trained
STATE_FILE = "server_state.safetensors"
"""State of the coordinator after a version, such as the moments of a server optimizer."""


def file_names(adapter_config: Mapping[str, object]) -> tuple[str, str]:
    """Return the names of the weights file and of the configuration file of a version."""
    return ADAPTER_FILES if "peft_type" in adapter_config else MODEL_FILES


def read_tensors(path: Path) -> Tensors:
    """Read a weights file; raise `RunError` if it is missing or damaged."""
    with disk_errors(path):
        return dict(load_file(path))
