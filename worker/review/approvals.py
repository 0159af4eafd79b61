"""Plans that a site was shown and has approved: `approvals.json` in its state directory.

An entry is kept under the plan's digest, with the plan itself, so that people can read later what
they have approved.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from common.disk_errors import disk_errors, translate
from common.errors import RunError
from common.files import make_private, write_durable
from common.protocol.run_plan import RunPlan

FILE = "approvals.json"
_REMEDY = "start the worker again, or name another folder with --state"


@dataclass(frozen=True)
class Approval:
    """What happened to a plan at a site; times are seconds since the Unix epoch."""

    shown_at: float
    approved_at: float | None = None


class Approvals:
    """The file of one state directory, which several workers may share."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / FILE

    def find(self, digest: str) -> Approval | None:
        """Return what happened to a plan; None if it was never shown.

        Raises:
            RunError: The file is damaged.
        """
        entry = self._read().get(digest)
        return None if entry is None else Approval(entry["shown_at"], entry.get("approved_at"))

    def note_shown(self, plan: RunPlan, now: float) -> None:
        """Record that a plan was shown, unless it was before; raise `RunError` as `find` does."""
        if self.find(plan.digest) is None:
            self._put(plan, {"shown_at": now})

    def approve(self, plan: RunPlan, now: float) -> None:
        """Record that a plan is approved; raise `RunError` as `find` does."""
        known = self.find(plan.digest)
        shown = now if known is None else known.shown_at
        self._put(plan, {"shown_at": shown, "approved_at": now})

    def _put(self, plan: RunPlan, entry: Mapping[str, float]) -> None:
        with disk_errors(self.path, _REMEDY):
            make_private(self.path.parent)
            with FileLock(self.path.with_name(f".{FILE}.lock")):
                entries = self._read()
                entries[plan.digest] = {**entry, "plan": plan.fields()}
                write_durable(self.path, json.dumps(entries, indent=1).encode())

    def _read(self) -> dict[str, Any]:
        try:
            entries = json.loads(self.path.read_text(encoding="utf-8"))
            if all(isinstance(each["shown_at"], int | float) for each in entries.values()):
                return dict(entries)
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise translate(error, self.path, _REMEDY) or error from None
        except (ValueError, TypeError, KeyError, AttributeError):
            pass
        raise RunError(f"{self.path} is damaged", "remove it, and approve the plan again")
