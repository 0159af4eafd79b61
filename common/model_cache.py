"""Base models in the cache folder, by digest: `models/DIGEST/`.

An entry is a directory, installed by `learning/models/base.py`, or a link to a directory elsewhere:
an offline model, a download from the hub, or a directory of the user. The coordinator uses this
module because it loads no torch.
"""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path

from common.errors import WireError
from common.files import write_durable
from common.protocol.manifest import is_model_file

_DIGEST = re.compile(r"[0-9a-f]{64}")


def installed_path(digest: str, cache: Path) -> Path:
    """Return the place of a model in the cache, whether it is installed or not.

    Raises:
        WireError: `digest`, which comes from another machine, is not a SHA-256 in hex.
    """
    if _DIGEST.fullmatch(digest) is None:
        raise WireError(f"{digest[:80]!r} is not a model digest (64 hexadecimal digits)")
    return cache / "models" / digest


def find_installed(digest: str, cache: Path) -> Path | None:
    """Return the directory of a model that was installed under this digest, or None.

    The name vouches for the content: a directory is renamed into place only when every byte of it
    has been checked. Files behind a link may change, so a link is valid only as long as their sizes
    and modification times are those at the time of the check.
    """
    path = installed_path(digest, cache)
    if not path.is_dir():
        return None
    if path.is_symlink() and (stamp := _stamp_file(path)).is_file():
        with contextlib.suppress(OSError, ValueError):
            return path if json.loads(stamp.read_text(encoding="utf-8")) == _stamp(path) else None
        return None
    return path


def link_installed(source: Path, digest: str, cache: Path) -> Path:
    """Install a directory under its digest by a link; return the path to use.

    The files must have been checked against the digest just now.
    """
    path = installed_path(digest, cache)
    if (found := find_installed(digest, cache)) is not None:
        return found
    with contextlib.suppress(OSError):  # without links on this file system `source` is used
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)  # a link with a changed or removed target
        write_durable(_stamp_file(path), json.dumps(_stamp(source)).encode())
        path.symlink_to(source.resolve())
    return find_installed(digest, cache) or source


def _stamp_file(path: Path) -> Path:
    return path.with_name(f".{path.name}.json")


def _stamp(folder: Path) -> dict[str, list[int]]:
    """Return the size in bytes and the modification time in nanoseconds of every model file."""
    stats = {f.name: f.stat() for f in folder.iterdir() if is_model_file(f.name)}
    return {name: [stat.st_size, stat.st_mtime_ns] for name, stat in sorted(stats.items())}
