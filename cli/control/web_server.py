"""The HTTP server of `fccl tui --web`: textual-serve behind checks of its own.

Every browser that opens the screen starts a process, and with `--controls` its keys change the run.
A web page of somebody else may send requests to any address of this machine, also under a name of
its own that resolves here. So each request must name this server in `Host`, requests of pages must
come from this server's own (`Origin`), and the number of screens is limited. Where the screen can
change the run, or can be reached from other machines, the URL has a secret in its path.
"""

from __future__ import annotations

import hmac
import ipaddress
import logging
import secrets

import click
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from textual_serve.server import Server

from common.operations.http_server import LOOPBACK_NAMES, host_name
from common.urls import HTTP, is_loopback, parse_url

MAX_SCREENS = 16
MAX_SIDE = 1000  # columns or rows of a browser's terminal
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class WebServer(Server):
    """Server of one screen that prints only its address and errors.

    Args:
        command: What the shell runs for each browser.
        public_url: URL at which browsers reach it; None for `host` and `port`.
        secret: First part of every path; empty for none.
    """

    def __init__(
        self, command: str, name: str, host: str, port: int, public_url: str | None, secret: str
    ) -> None:
        literal = f"[{host}]" if ":" in host else host
        url = (public_url or f"http://{literal}:{port}").rstrip("/")
        super().__init__(command, host, port, title=f"fccl {name}", public_url=url)
        self.name, self.secret, self.screens = name, secret, 0
        public = parse_url(url, HTTP)
        names = {literal.lower(), public.address.rpartition(":")[0].lower()}
        if any(is_loopback(each.strip("[]")) for each in names):
            names |= set(LOOPBACK_NAMES)
        self._names = frozenset(names)
        self._origins = frozenset(
            {f"http://{each}{'' if port == 80 else f':{port}'}" for each in names}
            | {f"{public.scheme}://{_netloc(public.scheme, public.address)}".lower()}
        )

    @property
    def address(self) -> str:
        """The URL to open, with the secret."""
        return f"{self.public_url}/{self.secret}/" if self.secret else f"{self.public_url}/"

    def initialize_logging(self) -> None:
        """Log errors in one line each: their tracebacks show what a browser sent."""
        handler = logging.StreamHandler()
        handler.setFormatter(_OneLine())
        logging.basicConfig(level="WARNING", handlers=[handler])

    async def on_startup(self, app: web.Application) -> None:
        click.echo(f"run {self.name} at {self.address}; Ctrl-C ends it")
        if self.secret:
            click.echo("everybody who knows this URL can use the screen: keep it secret")

    async def _make_app(self) -> web.Application:
        pages = await super()._make_app()
        if not self.secret:
            pages.middlewares.append(self.guard())
            return pages
        app = web.Application(middlewares=[self.guard()])
        app.add_subapp(f"/{self.secret}", pages)
        return app

    def guard(self) -> Middleware:
        """Return the middleware that checks every request."""

        @web.middleware
        async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
            websocket = request.path.endswith("/ws")
            if refusal := self.refusal(request, websocket):
                return web.Response(status=403, text=f"{refusal}\n", headers=HEADERS)
            if websocket:
                return await self._open_screen(request, handler)
            response = await handler(request)
            if not response.prepared:
                response.headers.update(HEADERS)
            return response

        return check

    def refusal(self, request: web.Request, websocket: bool) -> str:
        """Return why a request is refused; empty if it is not."""
        host = request.headers.getall("Host", [])
        name = host_name(host[0]) if len(host) == 1 else ""
        if name not in self._names:
            return "this name is not that of the server; start it with --public-url"
        origins = request.headers.getall("Origin", [])
        if (origins or websocket) and not (
            len(origins) == 1 and origins[0].lower() in self._origins
        ):
            return "requests of other web pages are refused (Origin)"
        given = request.path.split("/")[1]
        if self.secret and not hmac.compare_digest(given.encode(), self.secret.encode()):
            return "the secret is missing in the URL; `fccl tui --web` printed the whole URL"
        if not all(_is_side(request.query.get(side, "1")) for side in ("width", "height")):
            return f"width and height are numbers from 1 to {MAX_SIDE}"
        return ""

    async def _open_screen(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if self.screens >= MAX_SCREENS:
            text = f"{MAX_SCREENS} screens are open; close one\n"
            return web.Response(status=503, text=text, headers=HEADERS)
        self.screens += 1
        try:
            return await handler(request)
        finally:
            self.screens -= 1


class _OneLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        kind = record.exc_info[0] if record.exc_info else None
        text = kind.__name__ if kind is not None else record.getMessage()
        return "fccl: " + "".join(char if char.isprintable() else " " for char in text)


def needs_secret(host: str, public_url: str | None, controllable: bool) -> bool:
    """Return whether the screen can change the run, or can be reached from other machines."""
    public = public_url is not None and not parse_url(public_url, HTTP).is_loopback
    return controllable or public or not is_loopback(host)


def new_secret() -> str:
    return secrets.token_urlsafe(24)


def is_wildcard(host: str) -> bool:
    """Return whether an address stands for all of this machine's."""
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return not host


def _netloc(scheme: str, address: str) -> str:
    return address.removesuffix(f":{HTTP.ports[scheme]}")


def _is_side(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 5 and 0 < int(text) <= MAX_SIDE
