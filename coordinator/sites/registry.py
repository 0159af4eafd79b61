"""Registry of a federation's invited sites: a small SQLite file beside its run directories.

`fccl invite` and `fccl revoke` write it, and so does the coordinator when a site joins. It holds
hashes of passwords, never a password, so that users which the servers have lost can be restored.
Sites outlive a run: they also take part in the next run of the same name.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from common.errors import JoinError, RunError
from common.files import make_private
from common.protocol.invitation import format_time
from common.text import one_line

SCHEMA = """
CREATE TABLE IF NOT EXISTS site (
    name TEXT PRIMARY KEY, state TEXT NOT NULL, max_clients INTEGER NOT NULL,
    max_rows INTEGER NOT NULL, broker_hash TEXT NOT NULL DEFAULT '',
    store_hash TEXT NOT NULL DEFAULT '', host TEXT NOT NULL DEFAULT '',
    changed_at REAL NOT NULL);
CREATE TABLE IF NOT EXISTS token (
    token_id TEXT PRIMARY KEY, site TEXT NOT NULL UNIQUE, secret_hash TEXT NOT NULL,
    expires_at REAL NOT NULL, answer TEXT NOT NULL DEFAULT '');
"""

SiteState = Literal["invited", "joined", "revoked"]


@dataclass(frozen=True)
class InvitedSite:
    """Site with its limits and, once it has joined, the hashes of its credentials."""

    name: str
    state: SiteState
    max_clients: int
    max_rows: int
    broker_hash: str
    store_hash: str
    host: str
    changed_at: float


@dataclass(frozen=True)
class Token:
    """Newest join token of a site."""

    token_id: str
    site: str
    secret_hash: str
    expires_at: float
    answer: str  # JSON text for its holder; empty until there is one


class SiteRegistry:
    """Registry file. Several processes share it, so every method opens it anew."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def find(self, name: str) -> InvitedSite | None:
        return next((site for site in self.all() if site.name == name), None)

    def all(self) -> list[InvitedSite]:
        """Return all sites that were ever invited, oldest first."""
        if not self.path.exists():
            return []
        with self._open() as db:
            return [InvitedSite(*row) for row in db.execute("SELECT * FROM site ORDER BY rowid")]

    def tokens(self) -> list[Token]:
        if not self.path.exists():
            return []
        with self._open() as db:
            return [Token(*row) for row in db.execute("SELECT * FROM token ORDER BY rowid")]

    def invite(self, site: InvitedSite, token: Token, *, again: bool) -> Token | None:
        """Record an invitation; return the token of the site that it replaces, if any.

        A site that has joined keeps its old credentials until the new token is used.

        Raises:
            JoinError: The name is taken, and `again` is False.
        """
        with self._open() as db:
            row = db.execute("SELECT * FROM site WHERE name = ?", (site.name,)).fetchone()
            known = InvitedSite(*row) if row else None
            if known is not None and not again:
                raise JoinError(
                    f"site {site.name} is taken: {_describe(known)}",
                    f"choose another name, or `fccl invite {site.name} --again` for a new token",
                )
            old = db.execute("SELECT * FROM token WHERE site = ?", (site.name,)).fetchone()
            db.execute("DELETE FROM token WHERE site = ?", (site.name,))
            if known is not None and known.state == "joined":
                db.execute(
                    "UPDATE site SET max_clients = ?, max_rows = ? WHERE name = ?",
                    (site.max_clients, site.max_rows, site.name),
                )
            else:
                row = tuple(site.__dict__.values())
                db.execute("INSERT OR REPLACE INTO site VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
            row = tuple(token.__dict__.values())
            db.execute("INSERT INTO token VALUES (?, ?, ?, ?, ?)", row)
            return Token(*old) if old else None

    def join(self, token: Token, broker_hash: str, store_hash: str, host: str, now: float) -> None:
        """Record that a site has joined, with the hashes of its passwords."""
        with self._open() as db:
            db.execute(
                "UPDATE site SET state = 'joined', broker_hash = ?, store_hash = ?, host = ?,"
                " changed_at = ? WHERE name = ?",
                (broker_hash, store_hash, one_line(host), now, token.site),
            )

    def answer(self, token_id: str, answer: str) -> None:
        """Record the answer to the holder of a token."""
        with self._open() as db:
            db.execute("UPDATE token SET answer = ? WHERE token_id = ?", (answer, token_id))

    def revoke(self, name: str, now: float) -> InvitedSite:
        """Record that a site is revoked; return its previous entry.

        Raises:
            JoinError: No such site was invited, or it was revoked before.
        """
        site = self.find(name)
        if site is None:
            known = ", ".join(each.name for each in self.all()) or "none"
            raise JoinError(f"no site {name} was invited", f"invited: {known}")
        if site.state == "revoked":
            raise JoinError(f"site {name} was revoked already: {_describe(site)}")
        with self._open() as db:
            db.execute(
                "UPDATE site SET state = 'revoked', broker_hash = '', store_hash = '',"
                " changed_at = ? WHERE name = ?",
                (now, name),
            )
        return site

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            make_private(self.path.parent)
            if not self.path.exists():
                self.path.touch(mode=0o600)
            with closing(sqlite3.connect(self.path, timeout=10.0)) as db:
                db.executescript(SCHEMA)
                with db:
                    db.execute("BEGIN IMMEDIATE")
                    yield db
        except (OSError, sqlite3.Error) as error:
            raise RunError(
                f"the registry of sites {self.path} cannot be read or written ({error})",
                "check the file's permissions and the disk",
            ) from None


def _describe(site: InvitedSite) -> str:
    where = f" at {site.host}" if site.state == "joined" and site.host else ""
    return f"{site.state}{where} on {format_time(site.changed_at)}"
