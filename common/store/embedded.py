"""The store inside one process, for the demo: the same commands, without a Redis server.

It is also served on a loopback port, so that `fccl status` in a second terminal sees the run. The
process itself does not use that port, which would only copy adapters.
"""

from __future__ import annotations

import threading
from pathlib import Path

import fakeredis

from common.errors import StoreError
from common.store.store import Store

ADDRESS_FILE = "store.url"


class EmbeddedStore:
    """An in-process store, served on a loopback port from `start` to `close`."""

    def __init__(self) -> None:
        self._fake = fakeredis.FakeServer(server_type="redis")
        self._tcp: fakeredis.TcpFakeServer | None = None
        self._address_file: Path | None = None

    def start(self) -> None:
        self._tcp = fakeredis.TcpFakeServer(("127.0.0.1", 0), server_type="redis")
        self._tcp.fake_server = self._fake
        self._tcp.daemon_threads = True  # a viewer that stays must not keep the process alive
        threading.Thread(target=self._tcp.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        """The URL for other processes, once the store is started."""
        assert self._tcp is not None, "start() comes first"
        return f"redis://127.0.0.1:{self._tcp.server_address[1]}/0"

    def connect(self) -> Store:
        return Store(fakeredis.FakeStrictRedis(server=self._fake), "this process")

    def write_address(self, directory: Path) -> None:
        """Write the URL into a run directory, where `read_address` finds it until `close`."""
        self._address_file = directory / ADDRESS_FILE
        self._address_file.write_text(self.url, encoding="utf-8")

    def close(self) -> None:
        """Stop serving, and remove the address file."""
        if self._address_file is not None:
            self._address_file.unlink(missing_ok=True)
        if self._tcp is not None:
            self._tcp.shutdown()
            self._tcp.server_close()

    def __enter__(self) -> EmbeddedStore:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def read_address(directory: Path) -> str:
    """Return the URL of the store of a run that is embedded in a running process.

    Raises:
        StoreError: No process has written one there.
    """
    path = directory / ADDRESS_FILE
    if not path.exists():
        raise StoreError(f"no demo is running in {directory}", "check the path, or start the demo")
    return path.read_text(encoding="utf-8").strip()
