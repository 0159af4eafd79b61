"""`fccl invite`: creates a join token for another organisation."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from pathlib import Path

import click
from rich.console import Console

from broker.protocol import LOCAL, Site
from cli.options import config_option, find_config
from cli.run.coordinator import make_site_access
from common.config import loader
from common.config.config import FederationConfig
from common.errors import ConfigError, JoinError
from common.protocol.invitation import encode, format_time
from common.store.store import connect
from common.urls import SITE_BROKER, SITE_STORE, UrlError, parse_url
from coordinator.sites.credentials import InvitationTerms
from coordinator.sites.registry import SiteRegistry
from tui.text_table import TextTable

MAX_HOURS = 10 * 366 * 24
MAX_COUNT = 2**31 - 1


@click.command()
@click.argument("name", required=False)
@config_option
@click.option(
    "--hours",
    default=72.0,
    show_default=True,
    type=click.FloatRange(0, MAX_HOURS, min_open=True),
    help="Hours for which the token can be used.",
)
@click.option(
    "--clients",
    default=1,
    show_default=True,
    type=click.IntRange(1, MAX_COUNT),
    help="Number of clients that the site may have.",
)
@click.option(
    "--rows",
    default=100_000,
    show_default=True,
    type=click.IntRange(1, MAX_COUNT),
    help="Most training rows of a client that count.",
)
@click.option(
    "--again", is_flag=True, help="Make a new token for a site that has one, or has joined."
)
@click.option("--broker", help="URL at which the site reaches the broker [broker.public_url].")
@click.option("--store", help="URL at which the site reaches the store [store.public_url].")
@click.option("--insecure", is_flag=True, help="Allow addresses without TLS.")
@click.option("--list", "listing", is_flag=True, help="Show the invited sites.")
def command(
    name: str | None,
    config_path: Path | None,
    hours: float,
    clients: int,
    rows: int,
    again: bool,
    broker: str | None,
    store: str | None,
    insecure: bool,
    listing: bool,
) -> None:
    """Invite site NAME and print its join token, which can be used once.

    The other machine needs nothing else: `fccl worker --join TOKEN --data FILE`. The token is a
    secret. The clients of the site are called NAME, or NAME.SOMETHING.
    """
    config = loader.load(find_config(config_path))
    if listing:
        print_sites(SiteRegistry(config.run.sites))
        return
    if name is None:
        raise click.UsageError("Missing argument 'NAME'.")
    if Site(name) == LOCAL:
        raise JoinError("site local is the coordinator's own", "choose another name")
    if math.isnan(hours):
        raise ConfigError("--hours is no number", "give e.g. 72")
    terms = InvitationTerms(
        hours=hours,
        broker=public_address(
            "broker", broker or config.broker.public_url or config.broker.url, insecure
        ),
        store=public_address(
            "store", store or config.store.public_url or config.store.url, insecure
        ),
        ca=_read_ca(config),
        max_clients=clients,
        max_rows=rows,
        kinds=config.kinds,
        labels=config.data.labels if config.classifies else (),
    )
    access = make_site_access(config, connect(config.store.url, ca=config.store.ca))
    invitation = access.invite(name, terms, again=again)
    say = Console(stderr=True, highlight=False, markup=False).print
    say(f"site {name} is invited until {format_time(invitation.expires_at)}. On its machine, once:")
    say("")
    say("  fccl worker --join TOKEN --data FILE")
    say("")
    addresses = ((invitation.broker, SITE_BROKER), (invitation.store, SITE_STORE))
    if any(parse_url(url, kind).is_loopback for url, kind in addresses):
        say("note: these addresses work on this machine only; set broker.public_url and")
        say("store.public_url for sites on other machines")
    say("The token is a secret, and for this site only:")
    # The only line on standard output, unwrapped, so that it can be piped.
    click.echo(encode(invitation))


def print_sites(sites: SiteRegistry) -> None:
    table = TextTable(
        "site", "state", "since", "host", "clients", "rows of each, at most", box=None
    )
    for site in sites.all():
        numbers = (str(site.max_clients), str(site.max_rows))
        table.add_row(
            site.name, site.state, format_time(site.changed_at), site.host or "-", *numbers
        )
    if not table.row_count:
        click.echo("no site has been invited")
        return
    Console(width=None if sys.stdout.isatty() else 120, emoji=False).print(table)


def public_address(part: str, url: str, insecure: bool) -> str:
    """Return a server's URL without credentials, for the token.

    Raises:
        ConfigError: The URL cannot be read, or the connection is not encrypted.
    """
    kind = SITE_BROKER if part == "broker" else SITE_STORE
    plain, secure = kind.ports
    try:
        server = parse_url(url, replace(kind, options=None))  # its options stay here
    except UrlError as error:
        raise ConfigError(
            f"the address of the {part} for sites {error.what}",
            f"give --{part} {secure}://HOST:{kind.ports[secure]}/, or set {part}.public_url",
        ) from None
    address = f"{server.scheme}://{server.address}{server.path or '/'}"
    if server.scheme == plain and not insecure and not server.is_loopback:
        raise ConfigError(
            f"{address} is not encrypted",
            f"give --{part} {secure}://… (`fccl certs`, docs/operations.md), or --insecure",
        )
    return address


def _read_ca(config: FederationConfig) -> str | None:
    """Return the text of the certificates that vouch for both servers; None without `ca` keys.

    Raises:
        ConfigError: The two sections name different files, or the file cannot be read.
    """
    paths = dict.fromkeys(path for path in (config.broker.ca, config.store.ca) if path)
    if len(paths) > 1:
        raise ConfigError("broker.ca and store.ca differ", "put both certificates into one file")
    if not paths:
        return None
    path = Path(next(iter(paths)))
    try:
        return path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read ({error})", "set broker.ca, store.ca") from None
