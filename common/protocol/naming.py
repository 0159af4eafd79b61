"""Names that coordinator, workers and both servers' permissions agree on.

A run's id is its name, a time stamp and four hex digits. Its length is fixed, and no part holds a
'.' or ':', so that a permission for the runs of one name can never match those of another.
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
    """A new id for a run of this name."""
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    return f"{name}-{stamp}-{secrets.token_hex(2)}"


def runs_regex(name: str) -> str:
    """A regular expression for the ids of all runs of a name, as RabbitMQ's permissions use."""
    return re.escape(name) + r"-[0-9]{8}-[0-9]{6}-[0-9a-f]{4}"


def runs_glob(name: str) -> str:
    """A pattern for the ids of all runs of a name, as Redis' permissions use."""
    digit, hexdigit = "[0-9]", "[0-9a-f]"
    return f"{name}-{digit * 8}-{digit * 6}-{hexdigit * 4}"


def site_user(name: str, site: str) -> str:
    """The user of an invited site on both servers, in the federation of this name."""
    return f"{name}.{site}"


def join_user(token_id: str) -> str:
    """The user of the store who may only ask to join."""
    return f"join.{token_id}"
