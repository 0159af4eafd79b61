"""Runs of earlier releases, kept as `tests/fixtures/NAME.tar.gz`, which `make.py` there makes.

Each was interrupted: its coordinator was killed while an update waited in the spool, and its
worker while it had an answer without a receipt. The folder has the base model and the rows, too.
"""

from __future__ import annotations

import sqlite3
import tarfile
from contextlib import closing
from pathlib import Path

from tests.support.paths import ROOT

FOLDER = ROOT / "tests" / "fixtures"
UNSUPPORTED = "schema1_first"
SCHEMA1 = ("schema1_early", "schema1_last")
SITE = "issue15"  # with an invited site that learned from its inbox
RELEASES = (*SCHEMA1, SITE)
COMMITS = {
    "schema1_first": "0bb56dc",
    "schema1_early": "68fe522",
    "schema1_last": "ef01a34",
    "issue15": "4d16555",
}
"""The code that made them."""
LAST_WITH_SCHEMA1 = "8b50b68"
"""The newest code whose workers know schema 1 only. Workers of 2026-11-27 and before know other
names of records, and end with an error."""


def unpack_release(name: str, directory: Path) -> Path:
    """Unpack what a release left; return its run directory."""
    with tarfile.open(FOLDER / f"{name}.tar.gz") as archive:
        archive.extractall(directory, filter="data")
    return directory / "runs" / "old"


def change(run: Path, *statements: str) -> None:
    """Change the journal of a run, as a newer release might have written it."""
    with closing(sqlite3.connect(run / "run.db")) as db, db:
        for statement in statements:
            db.execute(statement)
