"""What comes and goes in a soak: workers, clients and invited sites, in an order of a seed."""

from __future__ import annotations

import random
import shutil
import signal
from contextlib import ExitStack
from pathlib import Path

from cli.control.control import await_reply
from common.protocol import commands
from common.protocol.commands import CommandName
from common.store import view
from common.store.store import Store
from tests.support.inviting_federation import InvitingFederation
from tests.support.processes import Command, eventually
from tests.support.sites_over_tls import instructions, site_machine, write_conversations

WORKERS = 3
SITES = 3
AWAY = 0.2
JOINED_S = 300.0


class Churn:
    """Random arrivals and departures.

    At most `WORKERS` workers of the coordinator's own site and `SITES` invited sites are present
    at a time, and at most the share `AWAY` of the clients is away.
    """

    def __init__(
        self, federation: InvitingFederation, store: Store, directory: Path, seed: int
    ) -> None:
        self._federation = federation
        self._store = store
        self._directory = directory
        self._random = random.Random(seed)
        self._workers: list[Command] = []
        self._away: list[str] = []
        self._sites: dict[str, tuple[ExitStack, Command]] = {}
        self.counts: dict[str, int] = {}

    def step(self) -> None:
        """Let one worker, client or site come or go."""
        change = self._random.choices(
            (self._change_worker, self._change_client, self._change_site), weights=(3, 6, 1)
        )[0]
        name = change()
        self.counts[name] = self.counts.get(name, 0) + 1

    def settle(self) -> None:
        """Let every client return and every worker and invited site go."""
        while self._away:
            self._return_client()
        while self._workers:
            self._end_worker()
        while self._sites:
            self._remove_site()

    def close(self) -> None:
        """End what is still here, whatever its state."""
        for stack, _ in self._sites.values():
            stack.close()

    def _change_worker(self) -> str:
        present = self._random.randint(0, WORKERS) < len(self._workers)
        return self._end_worker() if present else self._start_worker()

    def _start_worker(self) -> str:
        self._workers.append(self._federation.worker())
        return "worker starts"

    def _end_worker(self) -> str:
        worker = self._workers.pop(self._random.randrange(len(self._workers)))
        if self._random.random() < 0.3:
            worker.kill()
            return "worker killed"
        if worker.code is None:
            worker.signal(signal.SIGTERM)
        worker.end()
        return "worker ends"

    def _change_client(self) -> str:
        clients = [c.client_id for c in self._local_clients() if c.client_id not in self._away]
        limit = AWAY * (len(clients) + len(self._away))
        if self._random.uniform(0, limit) < len(self._away):
            return self._return_client()
        client = self._random.choice(clients)
        self._command("kick", client)
        self._away.append(client)
        return "client leaves"

    def _return_client(self) -> str:
        self._command("pardon", self._away.pop(self._random.randrange(len(self._away))))
        return "client returns"

    def _local_clients(self) -> list[view.ClientRow]:
        clients = view.read(self._store, "small").clients
        return [c for c in clients if c.site == "local"]

    def _command(self, action: CommandName, target: str) -> None:
        run = self._federation.run_id
        await_reply(self._store, run, commands.send(self._store, run, action, target))

    def _change_site(self) -> str:
        present = self._random.randint(0, SITES) < len(self._sites)
        return self._remove_site() if present else self._join_site()

    def _join_site(self) -> str:
        number = self.counts.get("site joins", 0)
        site = f"site-{number:03d}"
        token = self._federation.invite(site)
        stack = ExitStack()
        folder = self._directory / site
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        machine = stack.enter_context(site_machine(folder, self._directory / "cache"))
        rows = write_conversations(folder / "rows.jsonl", instructions(f"q{number}x"))
        worker = machine.join(token, rows)
        self._sites[site] = (stack, worker)  # it joins while other things happen
        return "site joins"

    def _wait_until_joined(self, site: str, worker: Command) -> None:
        def joined() -> bool:
            if worker.code is not None:
                raise AssertionError(f"{site} did not join:\n{worker.out}\n{worker.err}")
            clients = view.read(self._store, "small").clients
            return any(client.site == site for client in clients)

        eventually(f"{site} joins", joined, JOINED_S)

    def _remove_site(self) -> str:
        site = self._random.choice(sorted(self._sites))
        stack, worker = self._sites.pop(site)
        self._wait_until_joined(site, worker)
        revoked = self._federation.command("revoke", site)
        assert revoked.end() == 0, revoked.err
        worker.end(JOINED_S)  # it has lost its access
        stack.close()
        return "site is revoked"
