"""Base models by name, whether offline, downloaded or local.

A federation adapts one frozen model, and every side must hold the same bytes of it. A name becomes
a directory, the directory a manifest, the manifest a digest; tasks carry the digest, and a worker
that lacks the model installs it from the coordinator, file by file, under that digest.

In the data path: the preparation calls `resolve` before the first task is issued; a worker calls
`common.model_cache.find_installed` or `install` before it trains. Next: `learning.models.loader`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from common.errors import ModelError, WireError
from common.model_cache import installed_path
from common.protocol import codec
from common.protocol.manifest import ModelFile, make_manifest, parse_manifest
from learning.models import families, hub
from learning.models.directory import not_a_directory
from learning.models.families import Family
from learning.offline import builder as offline
from learning.progress import ProgressCallback


@dataclass(frozen=True)
class BaseModel:
    """A base model on this machine."""

    name: str  # as the user wrote it; a label, never a path after `resolve`
    revision: str | None  # commit on the hub; None for offline and local models
    kind: Literal["offline", "hub", "local"]
    digest: str  # SHA-256 of the manifest: the model's identity
    path: Path  # directory with its files


def resolve(
    name: str,
    revision: str | None,
    cache: Path,
    on_progress: ProgressCallback,
    family: Family | None = None,
) -> BaseModel:
    """Find, download or build a base model.

    Args:
        name: `offline:gpt2-tiny`, an existing directory, or a hub id such as `gpt2`.
        revision: Branch, tag or commit on the hub; None takes the newest commit. Ignored for other
            models.
        cache: Folder of offline and installed models.
        family: Family that the objective needs; None takes any model that fccl can train.

    Raises:
        ModelError: There is no such model, or it cannot be used.
    """
    path = Path(name).expanduser()
    if name.startswith(offline.PREFIX):
        built = _describe(
            name, None, "offline", offline.find_or_build(name, cache, on_progress), family
        )
        _alias(built, cache)
        return built
    if name and path.is_dir():
        return _describe(name, None, "local", path.resolve(), family)
    if path.is_file():
        raise not_a_directory(name, path)
    if not hub.is_hub_id(name):
        raise ModelError(
            f"model {name!r} is neither a directory nor a hub id",
            f"check the path, or set model.name to {offline.DEFAULT_CAUSAL}",
        )
    snapshot = hub.download(name, revision, on_progress)
    return _describe(name, snapshot.revision, "hub", snapshot.path, family)


def _alias(model: BaseModel, cache: Path) -> None:
    """Let workers that share this cache find an offline model by its digest, without a copy."""
    link = installed_path(model.digest, cache)
    if link.is_symlink() and not link.is_dir():  # its target was removed
        link.unlink(missing_ok=True)
    with contextlib.suppress(FileExistsError):
        link.symlink_to(model.path.name)


def _describe(
    name: str,
    revision: str | None,
    kind: Literal["offline", "hub", "local"],
    path: Path,
    family: Family | None,
) -> BaseModel:
    families.check(path, name, family)
    return BaseModel(name, revision, kind, codec.digest(make_manifest(path)), path)


def install(data: bytes, digest: str, fetch: Callable[[str, int], bytes], cache: Path) -> Path:
    """Fetch a model file by file, check every byte, and rename the whole into the cache.

    A model that is already in the cache is returned without a fetch.

    Args:
        data: The manifest, as the coordinator sent it.
        digest: Digest of the model, from the task.
        fetch: Called with a file's SHA-256 and its size in bytes; returns its content.
        cache: Folder of offline and installed models.

    Raises:
        WireError: Manifest or content do not match the digest, or the manifest is malformed.
    """
    target = installed_path(digest, cache)
    if codec.digest(data) != digest:
        raise WireError(f"model manifest does not match the digest {digest[:12]} of the task")
    files = parse_manifest(data)
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".part-", dir=target.parent))
    try:
        for file in files:
            _fetch_file(file, fetch, temporary)
        _rename(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def _fetch_file(file: ModelFile, fetch: Callable[[str, int], bytes], folder: Path) -> None:
    content = fetch(file.sha256, file.nbytes)
    if len(content) != file.nbytes or codec.digest(content) != file.sha256:
        raise WireError(f"model file {file.name} arrived with other bytes than its manifest states")
    with (folder / file.name).open("wb") as out:
        out.write(content)
        out.flush()
        os.fsync(out.fileno())


def _rename(temporary: Path, target: Path) -> None:
    try:
        temporary.rename(target)
    except OSError:
        if not target.is_dir():  # another worker was first: same digest, same bytes
            raise
