"""Checks of single values of a record: text that is present, valid and not too long.

In the data path: used by `learning.data.row_parser` and `learning.data.message_parser`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from learning.data.row_types import MAX_CHARS

MEDIA_COLUMNS = frozenset({"image", "images", "video", "videos", "audio", "audios"})
"""Columns of images, videos and sounds, in lower case; models that read text ignore them."""

OnOmission = Callable[[str], None]
"""Called with a description of a part that is left out of a row, without its text."""


class UnusableRow(Exception):
    """A record cannot become a row; says why in a few words, without the record's text."""


def ignore_omission(_: str) -> None:
    """Do nothing."""


def require_text(name: str, value: object) -> str:
    """Return a value that must be a text with more than white space, unchanged."""
    if value is None:
        raise UnusableRow(f"{name} is missing")
    text = optional_text(name, value)
    if not text.strip():
        raise UnusableRow(f"{name} is empty")
    return text


def optional_text(name: str, value: object) -> str:
    """Return a value that must be a text, unchanged; None becomes the empty text."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise UnusableRow(f"{name} is not text")
    if len(value) > MAX_CHARS:
        raise UnusableRow(f"{name} has {len(value)} characters, more than {MAX_CHARS}")
    if not value.isascii() and any("\ud800" <= c <= "\udfff" for c in value):
        raise UnusableRow(f"{name} is not valid UTF-8 text")  # a lone surrogate, or a stray byte
    return value


def refuse_media(record: Mapping[str, object]) -> None:
    """Raise `UnusableRow` if a record or a message has an image, a video or a sound."""
    for name, value in record.items():
        # Mixed data sets write an empty text or list if a row has none.
        if name.lower() in MEDIA_COLUMNS and value not in (None, "", [], {}, ()):
            raise UnusableRow(f"{name.lower()} cannot be used: models read text only")
