"""Writing a document's files: Markdown, HTML, JSON and pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.disk_errors import describe
from common.errors import RunError
from common.files import make_private, write_durable


def write_files(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Write files by name, in order, so that the last one exists once all do.

    Raises:
        RunError: The folder cannot be written.
    """
    try:
        make_private(folder)
        for name, content in contents.items():
            write_durable(folder / name, content)
    except OSError as error:
        raise RunError(
            f"{folder} cannot be written: {describe(error)}", "choose another folder with --out"
        ) from None


def replace_non_finite(value: Any) -> Any:
    """Return plain values with None for the numbers that JSON cannot represent."""
    if isinstance(value, Mapping):
        return {str(key): replace_non_finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [replace_non_finite(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
