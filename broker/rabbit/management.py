"""RabbitMQ's management API, used for the users of invited sites only.

A site's user may read its own task queue and write to its own update exchange, in the runs of one
name; it may not declare or bind anything, nor read anything else. The byte limit of its queue is
its quota (`broker/protocol.py`), and the number of its connections is limited here.
"""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx

from broker.rabbit.pika_setup import verifying_context
from common.errors import BrokerError
from common.protocol.naming import runs_regex
from common.urls import BROKER, HTTP, ServerUrl, parse_url

TIMEOUT_S = 10.0
MAX_CONNECTIONS = 64  # two for each worker
MAX_CHANNELS = 256
PORT, TLS_PORT = 15672, 15671


@dataclass(frozen=True)
class Permission:
    """Regular expressions for the resources that a user may configure, write and read."""

    configure: str
    write: str
    read: str


@dataclass(frozen=True)
class Account:
    """A user of RabbitMQ, and its permission on the broker's virtual host, if it has one."""

    password_hash: str
    permission: Permission | None


def permission(name: str, site: str) -> Permission:
    """Return what a site's user may do in all runs of a name (`broker.protocol.Topology`)."""
    runs, own = runs_regex(name), re.escape(site)
    return Permission("^$", rf"^fccl\.{runs}\.updates\.{own}$", rf"^fccl\.{runs}\.tasks\.{own}$")


def default_url(broker: ServerUrl) -> str:
    """Return the URL of the API where the configuration names none."""
    tls = broker.scheme == "amqps"
    host = f"[{broker.host}]" if ":" in broker.host else broker.host
    return f"{'https' if tls else 'http'}://{host}:{TLS_PORT if tls else PORT}"


class ManagementApi:
    """A client of the management API, as the user of the broker's URL.

    Methods raise `BrokerError` if the API does not answer, or refuses this user.

    Args:
        url: URL of the API; None for port 15672 of the broker's host (15671 with TLS).
        ca: File of certificates (PEM) to verify an https:// API with.
    """

    def __init__(self, broker_url: str, url: str | None = None, ca: str | None = None) -> None:
        broker = parse_url(broker_url, BROKER)
        self.url = parse_url(url or default_url(broker), HTTP).shown.rstrip("/")
        self._vhost = broker.vhost
        verify: ssl.SSLContext | bool = (
            verifying_context(ca) if self.url.startswith("https://") else True
        )
        self._http = httpx.Client(
            base_url=f"{self.url}/api/",
            auth=(broker.user or "guest", broker.password or "guest"),
            timeout=TIMEOUT_S,
            verify=verify,
            trust_env=False,  # the API is in our own network: no proxy
        )

    def version(self) -> str:
        return str(self._call("GET", "overview").get("rabbitmq_version", "?"))

    def users(self) -> set[str]:
        """Return the names of all users; needs an administrator."""
        return {str(user["name"]) for user in self._call("GET", "users")}

    def accounts(self) -> dict[str, Account]:
        """Return all users with their permissions, by name; needs an administrator."""
        permissions = {
            str(each["user"]): Permission(each["configure"], each["write"], each["read"])
            for each in self._call("GET", f"vhosts/{quote(self._vhost, safe='')}/permissions")
        }
        return {
            str(user["name"]): Account(
                str(user.get("password_hash", "")), permissions.get(str(user["name"]))
            )
            for user in self._call("GET", "users")
        }

    def put_user(self, user: str, password_hash: str, allowed: Permission) -> None:
        """Create a user, or replace its password and permission.

        `password_hash` is that of `common.protocol.invitation.broker_hash`.
        """
        name, vhost = quote(user, safe=""), quote(self._vhost, safe="")
        algorithm = "rabbit_password_hashing_sha256"
        fields = {"password_hash": password_hash, "hashing_algorithm": algorithm, "tags": ""}
        self._call("PUT", f"users/{name}", fields)
        granted = {"configure": allowed.configure, "write": allowed.write, "read": allowed.read}
        self._call("PUT", f"permissions/{vhost}/{name}", granted)
        for limit, value in (("max-connections", MAX_CONNECTIONS), ("max-channels", MAX_CHANNELS)):
            self._call("PUT", f"user-limits/{name}/{limit}", {"value": value})

    def delete_user(self, user: str) -> None:
        """Delete a user, if it exists. RabbitMQ closes its connections."""
        self._call("DELETE", f"users/{quote(user, safe='')}", missing_ok=True)

    def disconnect(self, user: str) -> None:
        """Close a user's connections."""
        self._call("DELETE", f"connections/username/{quote(user, safe='')}", missing_ok=True)

    def close(self) -> None:
        self._http.close()

    def _call(self, method: str, path: str, fields: Any = None, *, missing_ok: bool = False) -> Any:
        try:
            answer = self._http.request(method, path, json=fields)
        except httpx.HTTPError as error:
            raise BrokerError(
                f"RabbitMQ's management API at {self.url} does not answer ({type(error).__name__})",
                "run `rabbitmq-plugins enable rabbitmq_management`, or set broker.management",
            ) from None
        if answer.status_code in {401, 403}:
            raise BrokerError(
                f"RabbitMQ's management API at {self.url} refuses the user of broker.url",
                "give that user the tag `administrator`",
            )
        if answer.status_code == 404 and missing_ok:
            return None
        if answer.is_error:
            reason = answer.text[:200].replace("\n", " ")
            raise BrokerError(
                f"RabbitMQ's management API refused {method} {path}: {answer.status_code} {reason}",
                "check broker.management",
            )
        return answer.json() if answer.content else None
