"""Version directories `versions/000123/`: the adapter of every version, in PEFT's layout.

Each of them loads with `PeftModel.from_pretrained(base, directory)` or, in a run that trains all
parameters, with `AutoModel….from_pretrained(directory)`. Version t holds exactly what was broadcast
(the decoded payload), because deltas start from that.

A version is first staged: made durable under a name made of its content, `.made-SHA256`. Once the
journal has its row, one rename gives it its number. The row is fenced and names the content, so any
process that renames can only put the journaled version in its place: a coordinator that was paused
and replaced never writes into its successor's directory. The next start makes up for a rename that
a crash has prevented, and removes directories without a row.
"""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors.numpy import save, save_file

from common.disk_errors import disk_errors
from common.errors import RunError
from common.files import sync_path
from common.protocol import codec
from common.protocol.adapter_form import AdapterForm, frozen_part
from common.protocol.adapter_frame import adapter_ref, pack_adapter
from common.protocol.fields import CodecName
from common.protocol.tasks import BlobRef
from common.protocol.tensors import Tensors
from common.protocol.versions import RankedAdapter
from common.run_directory.version_files import STATE_FILE, file_names, read_tensors
from coordinator.aggregation.forms import AdapterForms

TEMPORARY = ".tmp-"
STAGED = ".made-"
RESUME = "--resume"


def encode_state(state: Tensors) -> bytes:
    """Return the file content of the server's state: nothing if there is none."""
    return save({name: state[name] for name in sorted(state)}) if state else b""


@dataclass(frozen=True)
class StagedVersion:
    """References of a version's frames: for clients of its own rank, and of lower ones."""

    sha256: str
    nbytes: int
    ranked: tuple[RankedAdapter, ...] = ()


class Versions:
    """Versions directory of one run.

    Files always hold whole versions; `forms` decides what of them is broadcast. `schema1` makes
    broadcast frames of schema 1, for a run that began with it. Without `durable` nothing waits for
    the disk, so that a power failure may lose what was written.
    """

    def __init__(
        self,
        path: Path,
        adapter_config: Mapping[str, object],
        name: CodecName,
        *,
        forms: AdapterForms | None = None,
        schema1: bool = False,
        durable: bool = True,
    ) -> None:
        self._sync = sync_path if durable else _write_later
        self._path = path
        self._forms = forms or AdapterForms()
        self._config = json.dumps(adapter_config, indent=2, sort_keys=True)
        self._names = file_names(adapter_config)
        self._codec = name
        self._schema1 = schema1

    def directory(self, version: int) -> Path:
        return self._path / f"{version:06d}"

    def stage(self, version: int, tensors: Tensors, state: bytes = b"") -> StagedVersion:
        """Make a version durable, without its number, and return the references of its frames.

        The memory of `tensors` is free again early on, if the caller holds them no longer. `state`
        is the server's state for the next step, as `encode_state` returns it.

        Raises:
            RunError: The tensors hold a value that is not finite, or the disk refused.
        """
        try:
            layout, data = codec.encode(self._codec, tensors)
        except ValueError as error:
            raise RunError(f"version {version}: {error}", "lower the learning rate") from None
        del tensors
        decoded = codec.decode(self._codec, layout, data)
        del data
        ref = self._ref(version, decoded, self._forms.common)
        ranked = tuple(
            RankedAdapter(rank=rank, **dict(self._ref(version, decoded, AdapterForm(rank=rank))))
            for rank in self._forms.lower_ranks
        )
        temporary = self._temporary()
        try:
            with disk_errors(temporary, RESUME):
                self._write(temporary, decoded, state)
                _rename(temporary, self._staged(ref.sha256))
                self._sync(self._path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)  # also if the same was made before
        return StagedVersion(ref.sha256, ref.nbytes, ranked)

    def _ref(self, version: int, tensors: Tensors, form: AdapterForm) -> BlobRef:
        return adapter_ref(version, self._codec, form.of(tensors), schema1=self._schema1)

    def place(self, version: int, sha256: str) -> None:
        """Give a staged version its number; call it only once the journal has the version's row."""
        staged = self._staged(sha256)
        with disk_errors(staged, RESUME):
            try:
                _rename(staged, self.directory(version))
            except FileNotFoundError:
                return  # a successor has placed it already
            self._sync(self._path)

    def roll_forward(self, journaled: Mapping[int, str]) -> None:
        """Place the journaled versions that a crash left staged; safe in any process, at any time.

        `journaled` holds the SHA-256 of the broadcast frame of each version.
        """
        for version, sha256 in journaled.items():
            if self._staged(sha256).exists() and not self.directory(version).exists():
                self.place(version, sha256)

    def _write(self, directory: Path, tensors: Tensors, state: bytes) -> None:
        directory.mkdir(parents=True)
        weights, config = (directory / name for name in self._names)
        save_file(tensors, weights, metadata={"format": "pt"})  # transformers requires it
        config.write_text(self._config, encoding="utf-8")
        if state:
            (directory / STATE_FILE).write_bytes(state)
            self._sync(directory / STATE_FILE)
        for path in (weights, config):
            self._sync(path)
        self._sync(directory)

    def read_state(self, version: int) -> Tensors:
        """Return the server's state that was made with a version; empty if there is none.

        Raises:
            RunError: Its file is damaged.
        """
        path = self.directory(version) / STATE_FILE
        return read_tensors(path) if path.exists() else {}

    def read(self, version: int) -> Tensors:
        """Return the tensors of a version; raise `RunError` if it is missing or damaged."""
        return read_tensors(self.directory(version) / self._names[0])

    def frame(self, version: int) -> bytes:
        """Return the broadcast frame of a version: the same bytes each time."""
        return self._frame(version, self._forms.common.of(self.read(version)))

    def frames(self, version: int) -> Iterator[bytes]:
        """Yield the broadcast frames of a version: of its own rank, then of lower ones."""
        tensors = self.read(version)
        yield self._frame(version, self._forms.common.of(tensors))
        for rank in self._forms.lower_ranks:
            yield self._frame(version, AdapterForm(rank=rank).of(tensors))

    def complete_frame(self, version: int) -> bytes:
        """Return a frame of all tensors of a version."""
        return self._frame(version, self.read(version))

    def frozen_frame(self) -> bytes:
        """Return the frame of the tensors that do not travel with versions; empty without any."""
        if not self._forms.frozen:
            return b""
        return self._frame(0, frozen_part(self.read(0)))

    def frame_of(self, version: int, tensors: Tensors) -> bytes:
        """Return a frame of other tensors, which were trained from a version."""
        return self._frame(version, tensors)

    def sweep(self, newest: int) -> None:
        """Remove directories without a row; call it after `roll_forward` and inside the fence."""
        for path in self._entries():
            stray = path.name.isdigit() and int(path.name) > newest
            if stray or path.name.startswith((TEMPORARY, STAGED)):
                self._remove(path)

    def retain(self, keep: set[int]) -> None:
        """Remove every version that is not in `keep`; call it inside the fence."""
        for path in self._entries():
            if path.name.isdigit() and int(path.name) not in keep:
                self._remove(path)

    def _remove(self, path: Path) -> None:
        """Rename a directory, then remove it, so that only a temporary one is ever incomplete.

        If a replaced coordinator is still writing in it, it can no longer rename it.
        """
        gone = self._temporary()
        with disk_errors(path, RESUME):
            try:
                path.rename(gone)
            except FileNotFoundError:
                return  # another coordinator has just renamed it
        shutil.rmtree(gone, ignore_errors=True)  # leftovers go at the next start

    def _entries(self) -> list[Path]:
        with disk_errors(self._path, RESUME):
            return list(self._path.iterdir())

    def _temporary(self) -> Path:
        return self._path / f"{TEMPORARY}{secrets.token_hex(8)}"

    def _staged(self, sha256: str) -> Path:
        return self._path / f"{STAGED}{sha256}"

    def _frame(self, version: int, tensors: Tensors) -> bytes:
        return pack_adapter(version, self._codec, tensors, schema1=self._schema1)


def _write_later(path: Path) -> None:
    """Leave it to the system when the bytes of a file reach the disk."""


def _rename(source: Path, target: Path) -> None:
    """Rename a directory unless the name is taken, by the same content."""
    try:
        source.rename(target)
    except FileNotFoundError:
        raise
    except OSError:  # "not empty" has no class of its own
        if not target.exists():
            raise
