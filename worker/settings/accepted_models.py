"""Base models that a site trains: patterns against which a task's base model is checked.

The check comes before anything is fetched or hashed. A name is what the coordinator claims; only a
digest names the bytes themselves.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase

from common.errors import ModelError
from common.protocol.tasks import BaseRef

_DIGEST = re.compile(r"sha256:[0-9a-f]{8,64}")
_PATTERN = re.compile(r"[A-Za-z0-9][\w.:/*?\[\]!-]{0,199}|\*[\w.:/*?\[\]!-]{0,199}")


def check_pattern(text: str) -> str:
    """Return a pattern if it is one.

    Raises:
        ValueError: It is not.
    """
    if text.startswith("sha256:") and _DIGEST.fullmatch(text) is None:
        raise ValueError(
            f"{text!r:.90} is not a digest: write sha256: and 8 to 64 digits (0-9, a-f)"
        )
    if _PATTERN.fullmatch(text) is None:
        raise ValueError(
            f"{text!r:.90} does not name a base model:"
            ' write e.g. "Qwen/*", "offline:*" or "sha256:1a2b3c4d"'
        )
    return text


def label(ref: BaseRef) -> str:
    """Return the name by which a base model is accepted.

    A name on the hub is itself, and the name of a local directory is `local:` and its last part. So
    a directory that is called `Qwen/Qwen3-0.6B` is not accepted as a model of the hub.
    """
    if ref.kind == "hub":
        return ref.name
    name = ref.name.removeprefix("offline:") if ref.kind == "offline" else ref.name
    return f"{ref.kind}:{name.replace(chr(92), '/').rstrip('/').rpartition('/')[2]}"


def is_accepted(patterns: Sequence[str], ref: BaseRef) -> bool:
    """Return whether a base model fits one of the patterns; without patterns every one does."""
    return not patterns or any(_matches(pattern, ref) for pattern in patterns)


def check_accepted(patterns: Sequence[str], ref: BaseRef) -> None:
    """Raise `ModelError` if a base model fits none of the patterns."""
    if not is_accepted(patterns, ref):
        raise ModelError(
            f"this site does not train the base model {label(ref)} ({ref.digest[:12]})",
            "add it to `accept` in the site's worker.toml, or run another model",
        )


def _matches(pattern: str, ref: BaseRef) -> bool:
    if pattern.startswith("sha256:"):
        return ref.digest.startswith(pattern.removeprefix("sha256:"))
    if pattern == "hub:*":
        return ref.kind == "hub"
    return fnmatchcase(label(ref), pattern)
