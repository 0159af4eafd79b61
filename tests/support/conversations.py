"""Builders of conversations: as records of a data set, and as rows."""

from __future__ import annotations

from learning.data.row_types import Message

SYSTEM = {"role": "system", "content": "Be kind."}


def dialogue(*texts: str) -> list[dict[str, object]]:
    """Return messages of the user and the assistant in alternation."""
    return [{"role": ("user", "assistant")[i % 2], "content": t} for i, t in enumerate(texts)]


def turns(*texts: str) -> tuple[Message, ...]:
    """Return turns of the user and the assistant in alternation."""
    return tuple(Message("assistant" if i % 2 else "user", text) for i, text in enumerate(texts))
