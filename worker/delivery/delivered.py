"""Delivered versions on a site's disk.

    STATE/<run id>/delivered/
        final/              the last version: a PEFT directory (or a whole model) with its card
        best/               the best version by the evaluation at the sites, if there was one
        delivered.json      which versions they are; written last

`worker/delivery/receiver.py` writes them; `fccl export --site` copies them.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from common.errors import RunError
from common.files import write_durable

FINAL, BEST = "final", "best"
_FILE = "delivered.json"


@dataclass(frozen=True)
class Delivered:
    """Delivered versions of one run."""

    run: str
    at: float  # of the delivery, by the coordinator's clock
    final: int
    best: int | None  # None without evaluations at the sites


def delivered_folder(state: Path, run: str) -> Path:
    return state / run / "delivered"


def read_delivered(folder: Path) -> Delivered | None:
    """Return what is in a folder; None before the delivery is complete."""
    try:
        fields = json.loads((folder / _FILE).read_text(encoding="utf-8"))
        return Delivered(**fields)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise RunError(
            f"{folder / _FILE} cannot be read ({type(error).__name__})",
            f"remove {folder}, and start the worker again to fetch the versions",
        ) from None


def write_delivered(folder: Path, delivered: Delivered) -> None:
    write_durable(folder / _FILE, json.dumps(asdict(delivered), indent=1).encode())


def newest_delivered(state: Path) -> tuple[Path, Delivered] | None:
    """Return the newest delivery in a state directory, with its folder; None without any."""
    folders = (path.parent for path in state.glob(f"*/delivered/{_FILE}"))
    found = [(folder, own) for folder in folders if (own := read_delivered(folder)) is not None]
    return max(found, key=lambda each: each[1].at, default=None)
