"""The store inside one process, for the demo: the same commands, without a server.

It is also served on a loopback port, so that `fccl status` in a second terminal sees the run. The
process itself does not go through that port: adapters would only be copied.
"""

from __future__ import annotations

import threading
from pathlib import Path

import fakeredis

from common.errors import StoreError
from common.store.store import Store

ADDRESS_FILE = "store.url"


class EmbeddedStore:
    """One in-process store and its loopback port."""

    def __init__(self) -> None:
        self._tcp = fakeredis.TcpFakeServer(("127.0.0.1", 0), server_type="redis")
        self._tcp.daemon_threads = True  # a viewer that stays must not keep the process
        self._thread = threading.Thread(target=self._tcp.serve_forever, daemon=True)
        self._thread.start()
        self.url = f"redis://127.0.0.1:{self._tcp.server_address[1]}/0"

    def open(self) -> Store:
        """A connection within this process."""
        return Store(fakeredis.FakeStrictRedis(server=self._tcp.fake_server), "this process")

    def announce(self, directory: Path) -> None:
        """Write the address into a run directory."""
        (directory / ADDRESS_FILE).write_text(self.url, encoding="utf-8")

    def close(self, directory: Path) -> None:
        """Stop serving, and take the address back."""
        (directory / ADDRESS_FILE).unlink(missing_ok=True)
        self._tcp.shutdown()
        self._tcp.server_close()


def read_address(directory: Path) -> str:
    """The address of the store of a run that is embedded in a running process.

    Raises:
        StoreError: No process announces one there.
    """
    path = directory / ADDRESS_FILE
    if not path.exists():
        raise StoreError(f"no running demo has announced itself in {directory}", "is it over?")
    return path.read_text(encoding="utf-8").strip()
