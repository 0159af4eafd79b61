"""Participants of a run, as its model card describes them: in numbers, without a name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from common.protocol.fields import RowKind
from common.protocol.naming import LOCAL_SITE
from common.run_directory.recorded_run import RecordedRun


@dataclass(frozen=True)
class Participants:
    """Clients of a version.

    Attributes:
        dealt: Number of clients whose rows the coordinator dealt.
        invited: Number of clients of invited sites whose updates are in the version.
        sites: Number of their sites.
        rows: Number of their training rows by kind.
    """

    dealt: int
    invited: int
    sites: int
    rows: Mapping[RowKind, int]


def find_participants(run: RecordedRun, version: int) -> Participants:
    """Return who took part in a version."""
    made = (each for each in run.versions if each.version <= version)
    names = {update.client_id for each in made for update in each.updates}
    invited = [
        client
        for name, client in run.clients.items()
        if name in names and client.site != LOCAL_SITE
    ]
    rows: dict[RowKind, int] = {}
    for client in invited:
        for kind, count in client.rows.items():
            rows[kind] = rows.get(kind, 0) + count
    return Participants(
        dealt=len(run.rows),
        invited=len(invited),
        sites=len({client.site for client in invited}),
        rows=rows,
    )


def describe_participants(who: Participants) -> str:
    """Return the beginning of a sentence about the clients, for the table of their rows."""
    parts = []
    if who.dealt:
        clients = _count(who.dealt, "simulated client")
        parts.append(f"{clients} with rows that the coordinator dealt")
    if who.invited:
        clients = _count(who.invited, "client")
        sites = _count(who.sites, "site")
        parts.append(f"{clients} at {sites} with rows of their own, which never left the sites")
    return " and ".join(parts) or "No client has taken part yet"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
