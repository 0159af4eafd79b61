"""Token of the worker's HTTP endpoint: created once, in a file that only its owner can read.

    STATE/inbox/token

All workers of one state directory share it; whoever may read the inboxes may read it.
"""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path

from filelock import FileLock

from common.errors import DataError
from common.files import write_durable
from worker.incremental.serving.served_run import LOCK_S

FILE = "token"
_BYTES = 32
_TOKEN = re.compile(r"[A-Za-z0-9_-]{43,}")


def token_path(state: Path) -> Path:
    return state / "inbox" / FILE


def load_or_create_token(state: Path) -> str:
    """Return the token of a state directory, creating it if there is none.

    Raises:
        DataError: The file cannot be created or read, holds no token, or others can read it.
    """
    path = token_path(state)
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with FileLock(path.with_name(f".{FILE}.lock"), timeout=LOCK_S):
            if not path.exists():
                write_durable(path, secrets.token_urlsafe(_BYTES).encode() + b"\n", 0o600)
        found = path.read_text(encoding="ascii").strip()
        mode, owner = path.stat().st_mode, path.stat().st_uid
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise DataError(f"{path}: {reason}", "set --state to a directory of your own") from None
    if mode & 0o077 or owner != os.geteuid():
        raise DataError(
            f"{path} is accessible to other users, who may know the token",
            "delete it, and give your applications the new one",
        )
    if not _TOKEN.fullmatch(found):
        raise DataError(f"{path} holds no token", "delete it; the worker creates a new one")
    return found
