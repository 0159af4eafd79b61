"""Credentials of invited sites on RabbitMQ and Redis: invite, admit, restore, revoke.

The secret of a join token allows nothing but a request to join. The worker makes the password that
it will use, and this module makes the site's users from the password's hashes, once. So a token
that was used, or that leaks afterwards, is worthless, and only the site ever has its password.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from pydantic import ValidationError

from broker.rabbit.management import Account, ManagementApi, permission
from common.clock import Clock
from common.errors import BrokerError, StoreError
from common.protocol.fields import RowKind
from common.protocol.invitation import (
    PROTOCOL,
    Invitation,
    JoinAnswer,
    JoinRequest,
    format_time,
    new_secret,
    short_labels,
    store_hash,
)
from common.protocol.kinds import EventKind
from common.protocol.naming import join_user, site_user
from common.store import acl
from common.store.store import Store
from coordinator.core.events import MAX_TEXT, EventLevel, LogEvent, log_event
from coordinator.ingest.ingest import Allowance
from coordinator.sites.registry import InvitedSite, SiteRegistry, Token

CHECK_S = 60.0
"""Seconds between two checks of RabbitMQ's users."""
RETRY_S = 15.0
"""Seconds to wait after a server has refused or not answered."""


@dataclass(frozen=True)
class InvitationTerms:
    """Terms of an invitation: its duration, the servers, the limits of the site."""

    hours: float
    broker: str
    store: str
    ca: str | None
    max_clients: int
    max_rows: int
    kinds: tuple[RowKind, ...] | None = None  # of rows that the run learns from
    labels: tuple[str, ...] = ()  # its classes, where it classifies and they are declared


class SiteAccess:
    """Access of one federation's invited sites, in the registry and on both servers.

    Methods raise `BrokerError` or `StoreError` if a server fails, except for `poll`.
    """

    def __init__(
        self, name: str, sites: SiteRegistry, management: ManagementApi, store: Store, clock: Clock
    ) -> None:
        """Store the arguments; the users of both servers have to be administrators."""
        self._name, self._sites = name, sites
        self._management, self._store, self._clock = management, store, clock
        self._checked_at = self._failed_at = 0.0
        self._renewed = False  # the permissions of all sites in the store, by this process
        self._failure = ""

    # for operators

    def invite(self, site: str, terms: InvitationTerms, *, again: bool) -> Invitation:
        """Make a join token for a site; `again` replaces that of a site that was invited before.

        Raises:
            JoinError: The name is taken, and `again` is False.
        """
        self._management.users()  # joining needs it: fail now rather than when the site waits
        now, secret = self._clock(), new_secret()
        expires_at = now + terms.hours * 3600
        invited = InvitedSite(site, "invited", terms.max_clients, terms.max_rows, "", "", "", now)
        token = Token(secrets.token_hex(8), site, store_hash(secret), expires_at, "")
        acl.users(self._store)
        replaced = self._sites.invite(invited, token, again=again)
        if replaced is not None:
            acl.revoke(self._store, join_user(replaced.token_id))
        self._grant_join(token)
        return Invitation(
            token_id=token.token_id,
            site=site,
            name=self._name,
            broker=terms.broker,
            store=terms.store,
            ca=terms.ca,
            secret=secret,
            expires_at=expires_at,
            kinds=terms.kinds,
            labels=short_labels(terms.labels),
        )

    def revoke(self, site: str) -> InvitedSite:
        """End a site's access and its connections immediately; return its previous entry.

        The registry changes first, then the store, then RabbitMQ. Updates that the site has sent
        stay in the model, because an average cannot be taken apart.

        Raises:
            JoinError: No such site takes part.
        """
        previous = self._sites.revoke(site, self._clock())
        user = site_user(self._name, site)
        acl.revoke(self._store, user)
        for token in self._sites.tokens():
            if token.site == site and not token.answer:
                reason = f"site {site} was revoked on {format_time(self._clock())}"
                self._answer(token, JoinAnswer(state="revoked", reason=reason))
        self._management.delete_user(user)
        return previous

    # for the coordinator, at every tick

    def allowances(self) -> Mapping[str, Allowance]:
        """Return the limits of each site that has joined, by name."""
        joined = (site for site in self._sites.all() if site.state == "joined")
        return MappingProxyType(
            {site.name: Allowance(site.max_clients, site.max_rows) for site in joined}
        )

    def broker_user(self, site: str) -> str:
        return site_user(self._name, site)

    def poll(self) -> list[LogEvent]:
        """Answer requests to join, restore users that the servers have lost, and return events.

        The failure of a server is an event too, not an error.
        """
        now = self._clock()
        if 0 <= now - self._failed_at < RETRY_S or not self._sites.all():
            return []
        try:
            tokens = self._sites.tokens()
            events = [event for token in tokens for event in self._check_token(token, now)]
            events += self._restore(now)
        except (BrokerError, StoreError) as error:
            self._failed_at = now
            if error.what == self._failure:
                return []
            self._failure = error.what
            return [_site_event("warning", f"invited sites have to wait: {error}")]
        self._failure = ""
        return events

    def _check_token(self, token: Token, now: float) -> list[LogEvent]:
        if token.answer:
            return []
        # Before the request is read, since it does not show whether it was made in time.
        if now >= token.expires_at:
            expired = format_time(token.expires_at)
            reason = f"the join token of site {token.site} expired on {expired}"
            self._answer(token, JoinAnswer(state="expired", reason=reason))
            return [_site_event("info", f"{reason}: nobody joined with it")]
        raw = self._store.get_join_request(token.token_id)
        return [] if raw is None else self._admit(token, raw, now)

    def _admit(self, token: Token, raw: bytes, now: float) -> list[LogEvent]:
        digest = hashlib.sha256(raw).hexdigest()
        try:
            request = JoinRequest.model_validate_json(raw)
        except ValidationError:
            return self._refuse(token, digest, "its request cannot be read")
        if request.protocol != PROTOCOL:
            text = f"it speaks protocol {request.protocol}, this federation {PROTOCOL}"
            return self._refuse(token, digest, f"{text}: install the coordinator's fccl there")
        user = site_user(self._name, token.site)
        known = user in self._management.users()
        self._management.put_user(user, request.broker_hash, permission(self._name, token.site))
        acl.grant(self._store, user, acl.site_rules(self._name, token.site, request.store_hash))
        if known:  # the site's old credentials end here
            self._management.disconnect(user)
            acl.disconnect(self._store, user)
        self._sites.join(token, request.broker_hash, request.store_hash, request.host, now)
        where = f" on {format_time(now)}" + (f" by {request.host}" if request.host else "")
        reason = f"the join token of site {token.site} was used{where}"
        self._answer(token, JoinAnswer(state="admitted", request=digest, reason=reason))
        text = f"site {token.site} has joined from {request.host} ({request.software})"
        return [_site_event("info", text)]

    def _refuse(self, token: Token, digest: str, cause: str) -> list[LogEvent]:
        # Not recorded in the registry: the same token may be tried again with the right software.
        reason = f"site {token.site} cannot join: {cause}"[:MAX_TEXT]
        answer = JoinAnswer(state="refused", request=digest, reason=reason)
        raw = answer.model_dump_json().encode()
        if self._store.get_join_answer(token.token_id) == raw:
            return []
        self._store.put_join_answer(token.token_id, raw)
        return [_site_event("warning", reason)]

    def _answer(self, token: Token, answer: JoinAnswer) -> None:
        """Answer the holder of a token, who can only read the answer from now on."""
        text = answer.model_dump_json()
        self._store.put_join_answer(token.token_id, text.encode())
        rules = acl.join_rules(token.token_id, token.secret_hash, used=True)
        acl.grant(self._store, join_user(token.token_id), rules)
        self._sites.answer(token.token_id, text)

    # users that the servers have lost

    def _restore(self, now: float) -> list[LogEvent]:
        joined = [site for site in self._sites.all() if site.state == "joined"]
        restored = [("Redis", name) for name in self._restore_store_users(joined)]
        if joined and not 0 <= now - self._checked_at < CHECK_S:
            restored += [("RabbitMQ", name) for name in self._restore_broker_users(joined)]
            self._checked_at = now
        return [
            _site_event("warning", f"{server} had lost the user of site {name}: restored it")
            for server, name in restored
        ]

    def _restore_store_users(self, joined: list[InvitedSite]) -> list[str]:
        """Restore the users of tokens and sites; return the sites whose user was missing."""
        known = acl.users(self._store)
        for token in self._sites.tokens():
            if join_user(token.token_id) not in known:
                self._grant_join(token)
        missing = [site for site in joined if site_user(self._name, site.name) not in known]
        # Once for all sites: those that joined an earlier release lack the rules that came later.
        for site in missing if self._renewed else joined:
            rules = acl.site_rules(self._name, site.name, site.store_hash)
            acl.grant(self._store, site_user(self._name, site.name), rules)
        self._renewed = True
        return [site.name for site in missing]

    def _restore_broker_users(self, joined: list[InvitedSite]) -> list[str]:
        """Restore users that RabbitMQ has lost, wholly or in part; return their sites.

        A RabbitMQ that is killed while a site joins can come back with the user and without its
        permissions, or with an older password.
        """
        accounts = self._management.accounts()
        restored = []
        for site in joined:
            user, allowed = site_user(self._name, site.name), permission(self._name, site.name)
            if accounts.get(user) != Account(site.broker_hash, allowed):
                self._management.put_user(user, site.broker_hash, allowed)
                restored.append(site.name)
        return restored

    def _grant_join(self, token: Token) -> None:
        """Let the holder of a token request to join, or read the answer that it was given."""
        if token.answer:
            self._store.put_join_answer(token.token_id, token.answer.encode())
        rules = acl.join_rules(token.token_id, token.secret_hash, used=bool(token.answer))
        acl.grant(self._store, join_user(token.token_id), rules)


def _site_event(level: EventLevel, text: str) -> LogEvent:
    return log_event(level, EventKind.SITES, text)
