"""Environments of child processes, without the secrets that they do not need.

Every process of the same user, and whatever a child reports, can show its environment.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_LOGIN = re.compile(r"FCCL_(BROKER|STORE)__.*|FCCL_JOIN")
_SECRET = re.compile(r".*(KEY|TOKEN|PASSWORD|SECRET|CREDENTIAL).*|FCCL_.*", re.IGNORECASE)


def without_logins(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables without the addresses of the servers, which hold passwords."""
    return {name: value for name, value in environ.items() if not _LOGIN.fullmatch(name)}


def without_secrets(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables without fccl's own and those whose names say that they are secret."""
    return {name: value for name, value in environ.items() if not _SECRET.fullmatch(name)}
