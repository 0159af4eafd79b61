"""Keeping secrets out of the messages of plug-ins, which may quote an address or a key."""

from __future__ import annotations

import os
import re

_SECRET_NAME = re.compile(r"KEY|TOKEN|PASSWORD|SECRET", re.IGNORECASE)
_LOGIN = re.compile(r"//\S+@")  # to the last @, since a password may hold any character
_SHORTEST = 6  # shorter values are words like "true"


def without_secrets(text: str) -> str:
    """Return a text without logins in URLs and values of variables such as `WANDB_API_KEY`."""
    for name, value in os.environ.items():
        if _SECRET_NAME.search(name) and len(value) >= _SHORTEST:
            text = text.replace(value, "***")
    return _LOGIN.sub("//***@", text)
