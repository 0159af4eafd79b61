"""Ports of this machine, and the processes that listen on them."""

from __future__ import annotations

import random
import socket
from pathlib import Path

HOST = "127.0.0.1"

# Below the ports that Linux, macOS and Windows give to outgoing connections. Otherwise a client
# that keeps trying to reach a server which is not up yet may take the server's port itself.
_FIRST, _LAST = 20_000, 32_000
_TRIALS = 200
_LISTENS = "0A"  # state of a socket in /proc/net/tcp


def free_port() -> int:
    """Return a loopback port that was free a moment ago."""
    for _ in range(_TRIALS):
        port = random.randint(_FIRST, _LAST)
        if is_free(port):
            return port
    raise OSError("no free port")


def is_free(port: int) -> bool:
    """Return whether a server could listen on a loopback port."""
    try:
        with socket.create_connection((HOST, port), timeout=1.0):
            return False
    except OSError:
        pass
    with socket.socket() as listener:
        # As servers do: otherwise a connection that ended a moment ago blocks the port.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, port))
        except OSError:
            return False
    return True


def port_holder(port: int) -> str:
    """Return the listener of a port, such as `redis-server (process 812)`; empty if unknown."""
    sockets = _listening(port)
    for process in Path("/proc").glob("[0-9]*"):
        try:
            links = {str(link.readlink()) for link in (process / "fd").iterdir()}
            if sockets & links:
                return f"{(process / 'comm').read_text().strip()} (process {process.name})"
        except OSError:  # it ended, or is another user's
            continue
    return ""


def _listening(port: int) -> set[str]:
    sockets = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            _, local, _, state, *_, inode = line.split()[:10]
            if state == _LISTENS and int(local.rpartition(":")[2], 16) == port:
                sockets.add(f"socket:[{inode}]")
    return sockets
