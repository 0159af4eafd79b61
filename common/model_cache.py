"""Base models in the cache folder, by digest: `models/DIGEST/`.

`learning/models/base.py` installs them; the coordinator, which loads no torch, finds them here.
"""

from __future__ import annotations

import re
from pathlib import Path

from common.errors import WireError

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
    has been checked.
    """
    path = installed_path(digest, cache)
    return path if path.is_dir() else None
