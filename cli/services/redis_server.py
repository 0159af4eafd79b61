"""Private Redis server."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import ClassVar

from cli.services.ports import HOST
from cli.services.processes import ProcessRecord, defer_interrupt, spawn
from cli.services.servers import INSTALL_REMEDY, TlsFiles, end_processes, make_home, record_path
from common.errors import FcclError, StoreError
from common.files import write_durable
from common.store.store import connect


class PrivateRedis:
    """Redis, whose content can be rebuilt, so that nothing is kept on the disk.

    With `durable`, as tests need it, every write is kept all the same. With a password it has its
    TLS port only, as Redis listens at the same addresses on all ports.
    """

    name: ClassVar[str] = "Redis"
    error: ClassVar[type[FcclError]] = StoreError

    def __init__(
        self,
        home: Path,
        port: int,
        tls: TlsFiles | None = None,
        durable: bool = False,
        password: str = "",
    ) -> None:
        self.home = home.absolute()
        self.port = port
        self._tls = tls
        self._durable = durable
        self._password = password

    @property
    def url(self) -> str:
        if self._password and self._tls is not None:
            return f"rediss://:{self._password}@localhost:{self._tls.port}/0"
        return f"redis://{HOST}:{self.port}/0"

    @property
    def log(self) -> Path:
        return self.home / "redis.log"

    def launch(self) -> None:
        binary = self.find()
        make_home(self.home)
        settings = self.home / "redis.conf"  # a password must not be in the list of processes
        lines = (f"{key} {json.dumps(value)}\n" for key, value in self._options().items())
        write_durable(settings, "".join(lines).encode(), mode=0o600)
        with defer_interrupt():
            process = spawn("redis-server", [binary, str(settings)], os.environ, self.log)
            ProcessRecord({"main": self.port}, (process,)).save(record_path(self.home))

    @classmethod
    def find(cls) -> str:
        if binary := shutil.which("redis-server"):
            return binary
        raise StoreError(
            "redis-server is not on PATH", INSTALL_REMEDY.format("Redis", "redis-server", "redis")
        )

    def _options(self) -> dict[str, str]:
        options = {
            "port": str(self.port),
            "bind": HOST,
            "dir": str(self.home),
            "save": "",
            "appendonly": "yes" if self._durable else "no",
            "maxmemory-policy": "noeviction",  # a full store must refuse writes, not drop adapters
        }
        if self._tls is not None:
            options |= {
                "tls-port": str(self._tls.port),
                "tls-ca-cert-file": str(self._tls.ca),
                "tls-cert-file": str(self._tls.certificate),
                "tls-key-file": str(self._tls.key),
                "tls-auth-clients": "no",
            }
        if self._password and self._tls is not None:
            options |= {"port": "0", "bind": self._tls.host, "requirepass": self._password}
        return options

    def answers(self) -> bool:
        try:
            connect(self.url, timeout_s=1.0, ca=None if self._tls is None else str(self._tls.ca))
        except StoreError:
            return False
        return True

    def end(self, record: ProcessRecord, number: signal.Signals) -> None:
        end_processes(record.running, number)
