"""The one parser of URLs: strict, and never repeating a user name or password.

Libraries read URLs leniently. A `/`, `?` or `#` in a password that was not percent-encoded ends the
host part early, so that pieces of the password become a host name and are looked up. Every URL of a
configuration, a join token, an option or a variable passes here before it is used.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote, unquote

from common.errors import ConfigError

_ENCODED = re.compile(r"(?:[^%]|%[0-9A-Fa-f]{2})*")
_HOST_NAME = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?:\.(?!-)[A-Za-z0-9_-]{1,63})*\.?")
_OPTION_NAME = re.compile(r"[a-z_]{1,40}")
_MAX_URL = 2000  # characters
_ENCODE = "write @ as %40, : as %3A, / as %2F, ? as %3F, # as %23, % as %25"


class UrlError(ValueError):
    """A URL that is refused; neither text repeats any part of it that may be secret."""

    def __init__(self, what: str, remedy: str) -> None:
        self.what, self.remedy = what, remedy
        super().__init__(f"{what}; {remedy}")


@dataclass(frozen=True)
class UrlKind:
    """What the URL of one kind of server may contain.

    Attributes:
        ports: Default ports by scheme, the plain one first; 0 for a Unix socket.
        example: A URL of this kind, for remedies.
        options: Names that the query may have; None for any.
        login: Whether it may have a user and password.
    """

    ports: Mapping[str, int]
    example: str
    options: frozenset[str] | None = frozenset()
    login: bool = True


BROKER = UrlKind(
    {"amqp": 5672, "amqps": 5671},
    "amqp://user:password@host:port/vhost",
    frozenset(
        {
            "blocked_connection_timeout",
            "channel_max",
            "client_properties",
            "connection_attempts",
            "frame_max",
            "heartbeat",
            "locale",
            "retry_delay",
            "socket_timeout",
            "stack_timeout",
            "tcp_options",
        }
    ),
)
"""RabbitMQ; of pika's options without `ssl_options`, instead of which there is `broker.ca`."""
STORE = UrlKind(
    {"redis": 6379, "rediss": 6379, "unix": 0},
    "redis://user:password@host:port/0",
    frozenset(
        {
            "client_name",
            "db",
            "health_check_interval",
            "max_connections",
            "password",
            "protocol",
            "socket_connect_timeout",
            "socket_keepalive",
            "socket_timeout",
            "ssl_ca_certs",
            "ssl_ca_path",
            "ssl_cert_reqs",
            "ssl_certfile",
            "ssl_check_hostname",
            "ssl_keyfile",
            "ssl_min_version",
            "ssl_password",
            "username",
        }
    ),
)
"""Redis."""
SITE_STORE = UrlKind({"redis": 6379, "rediss": 6380}, "rediss://host:6380/0")
"""Redis as other machines reach it."""
SITE_BROKER = UrlKind(BROKER.ports, "amqps://host:5671/")
"""RabbitMQ as other machines reach it."""
HTTP = UrlKind({"http": 80, "https": 443}, "https://host:port", login=False)
"""A server whose paths and login are known to the program."""
HTTP_ANY = UrlKind(HTTP.ports, "https://host:port/path", None)
"""A server of the user's, with a path and query."""
PROXY = UrlKind(
    {"http": 80, "https": 443, "socks4": 1080, "socks5": 1080, "socks5h": 1080},
    "http://user:password@host:port",
)
"""A proxy for downloads, as `HTTPS_PROXY` names it."""


@dataclass(frozen=True)
class ServerUrl:
    """A checked URL.

    Attributes:
        user: Decoded, like the password; None if the URL has none.
        host: Without the brackets of an IPv6 address; empty for a Unix socket.
        port: That of the URL, or the scheme's default.
        path: As in the URL.
    """

    scheme: str
    user: str | None
    password: str | None
    host: str
    port: int
    path: str

    @property
    def address(self) -> str:
        """Host and port, or the path of a Unix socket, for messages."""
        if not self.host:
            return unquote(self.path)
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def shown(self) -> str:
        """The URL for messages, without credentials and query."""
        return f"{self.scheme}://{self.address if self.host else ''}{self.path}"

    @property
    def vhost(self) -> str:
        """RabbitMQ's virtual host."""
        return unquote(self.path[1:]) or "/"

    @property
    def is_loopback(self) -> bool:
        """Whether the server can only be one on this machine."""
        return not self.host or is_loopback(self.host)

    def with_login(self, user: str, password: str) -> str:
        """Return the URL with these credentials, and without a query."""
        login = f"{quote(user, safe='')}:{quote(password, safe='')}"
        return f"{self.scheme}://{login}@{self.address}{self.path or '/'}"


def parse_url(text: str, kind: UrlKind) -> ServerUrl:
    """Return the parts of a URL.

    Raises:
        UrlError: The URL is not one of this kind, or could be read in two ways.
    """
    scheme, authority, path, query = _split(text, kind)
    login, at, server = authority.rpartition("@")
    user, password = _login(login) if at else (None, None)
    if at and not kind.login:
        raise UrlError("has a user or password, which is not used here", f"write {kind.example}")
    if user and password is None and scheme in BROKER.ports:
        raise UrlError("has a user without a password", f"write {kind.example}")
    if scheme == "unix":
        if server or not path.startswith("/"):
            raise UrlError("names no path of a Unix socket", "write unix:///run/redis.sock?db=0")
        host, port = "", 0
    else:
        host, port = _server(server, kind)
    _check_path(path, scheme)
    _check_query(query, kind)
    return ServerUrl(scheme, user, password, host, port or kind.ports[scheme], path)


def show_url(text: str, kind: UrlKind) -> str:
    """Return a URL for messages, without credentials; a text that is no URL is not repeated."""
    try:
        return parse_url(text, kind).shown
    except UrlError:
        return "a URL that cannot be read"


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine's loopback, by its name or address."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_proxies(environ: Mapping[str, str]) -> None:
    """Check the proxies that libraries for downloads take from the environment.

    Raises:
        ConfigError: A variable has no valid URL.
    """
    for name, value in sorted(environ.items()):
        if name.upper() not in {"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"} or not value:
            continue
        try:
            # Libraries take `host:port` for `http://host:port`.
            parse_url(value if "://" in value else f"http://{value}", PROXY)
        except UrlError as error:
            raise ConfigError(f"{name} {error.what}", error.remedy) from None


def _split(text: str, kind: UrlKind) -> tuple[str, str, str, str]:
    """Return scheme, user and server, path, and query."""
    if len(text) > _MAX_URL or not all(c.isprintable() and not c.isspace() for c in text):
        raise UrlError(
            "has a space, a line break or another character that no URL has, or is too long",
            f"write {kind.example}, with such characters percent-encoded",
        )
    scheme, mark, rest = text.partition("://")
    if not mark or scheme not in kind.ports:
        schemes = [f"{each}://" for each in kind.ports]
        raise UrlError(
            f"does not begin with {', '.join(schemes[:-1])} or {schemes[-1]}",
            f"write {kind.example}",
        )
    match = re.search(r"[/?#]", rest)
    authority, tail = (rest[: match.start()], rest[match.start() :]) if match else (rest, "")
    if "@" in tail or "#" in tail or authority.count("@") > 1 or "\\" in rest:
        raise _not_encoded()
    if _ENCODED.fullmatch(rest) is None:
        raise _not_encoded()
    path, _, query = tail.partition("?")
    return scheme, authority, path, query


def _not_encoded() -> UrlError:
    return UrlError(
        "has a character in its user, password or path that must be percent-encoded"
        " (@ : / ? # % \\)",
        _ENCODE,
    )


def _login(login: str) -> tuple[str, str | None]:
    if re.search(r"[\[\]<>\"{}|^`]", login):
        raise _not_encoded()
    user, mark, password = login.partition(":")
    try:
        return unquote(user, errors="strict"), unquote(password, errors="strict") if mark else None
    except UnicodeDecodeError:
        raise UrlError("has a user or password that is not UTF-8", "encode it in UTF-8") from None


def _server(server: str, kind: UrlKind) -> tuple[str, int]:
    """Return host and port; port 0 if the URL has none."""
    if server.startswith("["):
        host, mark, port = server[1:].partition("]")
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            mark = ""
        if not mark or (port and not port.startswith(":")):
            raise UrlError("has no IPv6 address in its brackets", "write e.g. [::1]:PORT")
        port = port[1:]
    else:
        host, _, port = server.partition(":")
        if not host:
            raise UrlError("names no host", f"write {kind.example}")
        if ":" in port:
            raise UrlError("has more than one port", "write an IPv6 address in brackets: [::1]")
        if not _is_host_name(host):
            raise UrlError("has a host that is no name or address", f"write {kind.example}")
    if port and not (port.isascii() and port.isdigit() and 0 < int(port[:6]) < 2**16):
        raise UrlError("has a port that is no number from 1 to 65535", f"write {kind.example}")
    return host, int(port or 0)


def _is_host_name(host: str) -> bool:
    try:
        plain = host if host.isascii() else host.encode("idna").decode("ascii")
    except UnicodeError:
        return False
    return len(plain) <= 253 and _HOST_NAME.fullmatch(plain) is not None


def _check_path(path: str, scheme: str) -> None:
    if scheme in BROKER.ports and "/" in path[1:]:
        raise UrlError("has more than one part after the host", "write a / in a vhost as %2F")
    if scheme in SITE_STORE.ports and not re.fullmatch(r"/?|/[0-9]{1,6}/?", path, re.ASCII):
        raise UrlError("has no number of a database after the host", "write e.g. /0")


def _check_query(query: str, kind: UrlKind) -> None:
    if not query or kind.options is None:
        return
    try:
        pairs = parse_qsl(
            query, keep_blank_values=True, strict_parsing=True, errors="strict", max_num_fields=20
        )
    except ValueError:
        raise UrlError("has a query that cannot be read", "write ?option=value") from None
    known = f"the options are {', '.join(sorted(kind.options))}" if kind.options else "leave it out"
    for name, _value in pairs:
        if name not in kind.options:
            shown = f" {name}" if _OPTION_NAME.fullmatch(name) else ""
            raise UrlError(f"has the unknown option{shown} after its ?", known)
    if len(dict(pairs)) != len(pairs):
        raise UrlError("has an option twice", "give each once")
