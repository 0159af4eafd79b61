"""Removal of this machine's paths from texts that leave it.

The coordinator and its viewers get reasons: of refusals, and of a worker's events. Names of folders
and files are a matter of the site, so every such text goes through `LocalPaths.strip`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

PLACEHOLDER = "[path]"

_PART = r"[^\s'\"`,;:()\[\]{}<>|]"
_ABSOLUTE = rf"(?<![\w/:.\\])(?:~|\.\.?)?/(?!/){_PART}+"
_WINDOWS = rf"(?<!\w)(?:[A-Za-z]:[\\/]|\\\\){_PART}+"
_DATA = r"csv|tsv|jsonl?|parquet|txt"
_OTHER = r"safetensors|gguf|toml|pem|key|db|log|py|sh"
_FILE = rf"(?<![\w/.])\w[\w.-]*\.(?:{_DATA})\b"
_RELATIVE = rf"(?<![\w/.])\w[\w.-]*(?:[/\\][\w.-]+)*[/\\][\w.-]+\.(?:{_DATA}|{_OTHER})\b"
_ANY_PATH = re.compile("|".join((_WINDOWS, _ABSOLUTE, _RELATIVE, _FILE)))


class LocalPaths:
    """Filter that knows the folders of one worker, whatever characters are in their names."""

    def __init__(self, folders: Iterable[Path | None] = ()) -> None:
        texts = {
            text
            for folder in folders
            if folder is not None
            for text in (str(folder), str(folder.absolute()), str(folder.resolve()))
            if len(Path(text).parts) > 1
        }
        longest_first = sorted(texts, key=len, reverse=True)
        known = "|".join(re.escape(text) for text in longest_first)
        self._known = re.compile(rf"(?:{known})(?:[/\\]{_PART}*)?(?!\w)") if known else None

    def strip(self, text: str) -> str:
        """Return a text with `[path]` in place of every path, and of every name of a data file."""
        if self._known is not None:
            text = self._known.sub(PLACEHOLDER, text)
        return _ANY_PATH.sub(PLACEHOLDER, text)
