"""A federation over TLS whose coordinator invites sites."""

from __future__ import annotations

from tests.support.federations import Federation
from tests.support.processes import Command

TLS_SECTIONS = """
[broker]
ca = "{ca}"
management = "{management}"
[store]
ca = "{ca}"
"""


class InvitingFederation(Federation):
    """Federation with invited sites."""

    def command(self, *words: str) -> Command:
        return self.place.fork(*words)

    def invite(self, site: str, *flags: str) -> str:
        """Return a join token for a site."""
        command = self.command("invite", site, *flags)
        assert command.end() == 0, command.err
        return command.out.strip()

    def joined(self) -> list[str]:
        """Return the clients of invited sites that take part."""
        return [str(c) for (c,) in self.rows("SELECT client_id FROM member WHERE left = 0")]

    def accepted_from(self, client: str) -> int:
        """Return how many updates of a client were accepted."""
        query = f"SELECT COUNT(*) FROM accepted WHERE client_id = '{client}'"
        found = self.rows(query)
        return int(found[0][0]) if found else 0
