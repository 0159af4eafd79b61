"""Names that coordinator, workers and the permissions of both servers share.

A run's id is its name, a time stamp and four hex digits. The part after the name has a fixed form,
and no part has a '.' or ':', so a permission for the runs of one name never matches another's.
"""

from __future__ import annotations

import re
import secrets
from datetime import UTC, datetime
from typing import Annotated

from pydantic import Field

LOCAL_SITE = "local"
"""The coordinator's own site: its workers share the directory of the rows that it dealt."""
SiteName = Annotated[str, Field(pattern=r"^[a-z0-9-]{1,32}$")]


def new_run_id(name: str) -> str:
    """Return a new id for a run of this name."""
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    return f"{name}-{stamp}-{secrets.token_hex(2)}"


def runs_regex(name: str) -> str:
    """Return a regular expression for the ids of a name's runs, for RabbitMQ's permissions."""
    return re.escape(name) + r"-[0-9]{8}-[0-9]{6}-[0-9a-f]{4}"


def runs_glob(name: str) -> str:
    """Return a glob pattern for the ids of a name's runs, for Redis' permissions."""
    digit, hexdigit = "[0-9]", "[0-9a-f]"
    return f"{name}-{digit * 8}-{digit * 6}-{hexdigit * 4}"


def site_user(name: str, site: str) -> str:
    """Return the name of an invited site's user on both servers."""
    return f"{name}.{site}"


def join_user(token_id: str) -> str:
    """Return the name of the store's user who may only ask to join."""
    return f"join.{token_id}"
