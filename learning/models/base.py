"""Base models by name, whether offline, downloaded or local.

A federation adapts one frozen model, and every side must hold the same bytes of it. A name becomes
a directory, the directory a manifest, the manifest a digest; tasks carry the digest, and a worker
that lacks the model installs it from the coordinator, piece by piece, under that digest.

In the data path: the preparation calls `resolve` before the first task is issued; a worker calls
`common.model_cache.find_installed` or `install` before it trains. Next: `learning.models.loader`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from common.errors import ModelError, WireError
from common.files import sync_path
from common.model_cache import find_installed, installed_path
from common.protocol import codec
from common.protocol.manifest import (
    ModelFile,
    is_model_file,
    make_manifest,
    parse_manifest,
    total_bytes,
)
from learning.models import families, hub
from learning.models.directory import not_a_directory
from learning.models.families import Family
from learning.offline import builder as offline
from learning.progress import ProgressCallback

FetchFile = Callable[[ModelFile, int], Iterator[bytes]]
"""Yields the bytes of a file from an offset on, in chunks."""
FETCHING = "fetching the base model"
_INDEX = "model.safetensors.index.json"
_BLOCK = 1 << 20  # bytes read at once


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
    _check_shards(path, name)
    return BaseModel(name, revision, kind, codec.digest(make_manifest(path)), path)


def _check_shards(path: Path, name: str) -> None:
    """Raise `ModelError` if files that the index of a sharded model names are missing."""
    if not (path / _INDEX).is_file() or (path / "model.safetensors").is_file():
        return
    try:
        names = set(json.loads((path / _INDEX).read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise ModelError(
            f"model {name}: {path / _INDEX} is no index of weights", "get the model again"
        ) from None
    here = {file.name for file in path.iterdir() if is_model_file(file.name)}
    missing = sorted(str(each) for each in names if each not in here)
    if missing:
        raise ModelError(
            f"model {name} lacks {missing[0]} ({len(missing)} of {len(names)} files of weights)",
            "get the model again; a download may have been interrupted",
        )


def install(
    data: bytes,
    digest: str,
    fetch: FetchFile,
    cache: Path,
    on_progress: ProgressCallback = lambda message, fraction: None,
) -> Path:
    """Fetch a model in pieces, check every byte, and rename the whole into the cache.

    Files are never in memory as a whole. If `fetch` raises an error, the next call continues with
    the bytes that are on the disk. A model that is already in the cache is not fetched. Only one
    process may install a model at a time.

    Args:
        data: The manifest, as the coordinator sent it.
        digest: Digest of the model, from the task.
        fetch: Called with a file and the number of its bytes that are already on the disk.
        cache: Folder of offline and installed models.

    Raises:
        ModelError: The disk is full or cannot be written.
        WireError: Manifest or content do not match the digest, or the manifest is malformed.
    """
    target = installed_path(digest, cache)
    if codec.digest(data) != digest:
        raise WireError(f"model manifest does not match the digest {digest[:12]} of the task")
    files = parse_manifest(data)
    if (found := find_installed(digest, cache)) is not None:
        return found
    target.unlink(missing_ok=True)  # a link whose directory has changed or was removed
    folder = target.with_name(f".part-{digest}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _check_space(files, folder)
        _fetch_files(files, fetch, folder, on_progress)
        sync_path(folder)
        _rename(folder, target)
        sync_path(target.parent)
    except WireError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    except OSError as error:
        raise ModelError(
            f"the base model cannot be written to {target.parent}: {error.strerror or error}",
            "free the space, or set FCCL_CACHE to a folder on another disk",
        ) from None
    return target


def _check_space(files: tuple[ModelFile, ...], folder: Path) -> None:
    here = sum(file.stat().st_size for file in folder.iterdir())
    needed, free = total_bytes(files) - here, shutil.disk_usage(folder).free
    if needed > free:
        raise ModelError(
            f"the base model needs {needed / 2**30:.1f} GiB in {folder.parent}, where"
            f" {free / 2**30:.1f} GiB are free",
            "free the space, or set FCCL_CACHE to a folder on another disk",
        )


def _fetch_files(
    files: tuple[ModelFile, ...], fetch: FetchFile, folder: Path, on_progress: ProgressCallback
) -> None:
    total, done = max(1, total_bytes(files)), 0
    on_progress(FETCHING, 0.0)
    for file in files:
        for size in _fetch_file(file, fetch, folder / file.name):
            on_progress(FETCHING, (done + size) / total)
        done += file.nbytes
    on_progress(FETCHING, 1.0)


def _fetch_file(file: ModelFile, fetch: FetchFile, path: Path) -> Iterator[int]:
    """Fetch what is missing of a file, and make it durable; yield the size after each piece."""
    with path.open("ab+") as out:
        out.seek(0)
        digest = hashlib.sha256()
        while block := out.read(_BLOCK):
            digest.update(block)
        size = out.tell()
        if size < file.nbytes:
            for piece in fetch(file, size):
                size += len(piece)
                if size > file.nbytes:
                    break
                out.write(piece)
                digest.update(piece)
                yield size
        out.flush()
        os.fsync(out.fileno())
    if size != file.nbytes or digest.hexdigest() != file.sha256:
        raise WireError(f"model file {file.name} arrived with other bytes than its manifest states")


def _rename(folder: Path, target: Path) -> None:
    try:
        folder.rename(target)
    except OSError:
        if not target.is_dir():  # another worker was first: same digest, same bytes
            raise
        shutil.rmtree(folder, ignore_errors=True)
