"""The adapter of every version, as PEFT directories: `versions/000123/`.

Any of them loads with `PeftModel.from_pretrained(base, directory)`. Version t holds exactly what
was broadcast (the decoded payload), because deltas start from that. A directory appears by one
rename, before its journal row; a start removes directories that no row refers to.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from common import codec
from common.errors import RunError
from common.files import sync
from common.records import Adapter, BlobRef, CodecName
from common.tensors import Tensors
from common.wire import pack

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"


class Versions:
    """The versions directory of one run."""

    def __init__(self, path: Path, adapter_config: Mapping[str, object], name: CodecName) -> None:
        self._path = path
        self._config = json.dumps(adapter_config, indent=2, sort_keys=True)
        self._codec = name
        path.mkdir(parents=True, exist_ok=True)

    def directory(self, version: int) -> Path:
        """Where a version lies, whether or not it exists."""
        return self._path / f"{version:06d}"

    def write(self, version: int, tensors: Tensors) -> BlobRef:
        """Make a version durable; returns the reference of its broadcast frame.

        Raises:
            RunError: The tensors hold a value that is not finite, or the disk refused.
        """
        try:
            entries, data = codec.encode(self._codec, tensors)
        except ValueError as error:
            raise RunError(f"version {version}: {error}", "lower the learning rate") from None
        decoded = codec.decode(self._codec, entries, data)
        temporary = self._path / f".tmp-{version:06d}"
        try:
            self._write(temporary, decoded)
            # A directory left by a crash before its row is complete, but nothing refers to it.
            shutil.rmtree(self.directory(version), ignore_errors=True)
            temporary.rename(self.directory(version))
            sync(self._path)
        except (OSError, SafetensorError) as error:
            raise RunError(f"{temporary}: {error}", "make room, then --resume") from None
        return _ref(self._frame(version, decoded))

    def _write(self, directory: Path, tensors: Tensors) -> None:
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir()
        save_file(tensors, directory / WEIGHTS)
        (directory / CONFIG).write_text(self._config, encoding="utf-8")
        for name in (WEIGHTS, CONFIG):
            sync(directory / name)
        sync(directory)

    def read(self, version: int) -> Tensors:
        """θ of a version.

        Raises:
            RunError: It is not there or does not parse.
        """
        path = self.directory(version) / WEIGHTS
        try:
            return dict(load_file(path))
        except (OSError, SafetensorError) as error:
            raise RunError(f"{path}: {error}", "restore the run from a backup") from None

    def frame(self, version: int) -> bytes:
        """The broadcast frame of a version: the same bytes each time."""
        return self._frame(version, self.read(version))

    def sweep(self, newest: int) -> None:
        """Remove what a crash left: temporary directories, and versions without a row."""
        for path in self._path.iterdir():
            stray = path.name.isdigit() and int(path.name) > newest
            if stray or path.name.startswith(".tmp-"):
                shutil.rmtree(path)

    def retain(self, keep: set[int]) -> list[int]:
        """Remove every version that is not to be kept; returns those removed."""
        present = sorted(int(path.name) for path in self._path.iterdir() if path.name.isdigit())
        removed = [version for version in present if version not in keep]
        for version in removed:
            shutil.rmtree(self.directory(version))
        return removed

    def _frame(self, version: int, tensors: Tensors) -> bytes:
        # Safetensors files list tensors by name, whatever order they were given in.
        ordered = {name: tensors[name] for name in sorted(tensors)}
        entries, data = codec.encode(self._codec, ordered)
        return pack(Adapter(version=version, codec=self._codec, tensors=entries), data)


def _ref(frame: bytes) -> BlobRef:
    return BlobRef(sha256=codec.digest(frame), nbytes=len(frame))
