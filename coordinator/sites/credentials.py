"""Invites sites, lets them in, and shows them out: the credentials on both servers.

A token's secret can only ask the store to join. The worker makes the password that it will use;
here its hashes become the site's users, once. So a token that was used, or leaked afterwards, is
worth nothing, and nobody but the site ever had its password.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from pydantic import ValidationError

from broker.rabbit.management import ManagementApi, permission
from common.clock import Clock
from common.errors import BrokerError, StoreError
from common.protocol.invitation import (
    PROTOCOL,
    Invitation,
    JoinAnswer,
    JoinRequest,
    format_time,
    new_secret,
    store_hash,
)
from common.protocol.naming import join_user, site_user
from common.store import acl
from common.store.store import Store
from coordinator.core.events import LogEvent
from coordinator.ingest.ingest import Allowance
from coordinator.sites.registry import InvitedSite, SiteRegistry, Token

LOOK_S = 60.0  # whether RabbitMQ still knows every site: it forgets only with its disk
RETRY_S = 15.0  # after a server that refused or did not answer


@dataclass(frozen=True)
class InvitationTerms:
    """What an invitation offers: how long, where, and what the site may bring."""

    hours: float
    broker: str
    store: str
    ca: str | None
    max_clients: int
    max_rows: int


class SiteAccess:
    """The sites of one federation, on its file and on both servers."""

    def __init__(
        self, name: str, sites: SiteRegistry, management: ManagementApi, store: Store, clock: Clock
    ) -> None:
        """Nothing is read or written yet.

        Args:
            name: Of the runs.
            sites: The file.
            management: As an administrator.
            store: As a user who may make users.
            clock: Seconds since the epoch.
        """
        self._name, self._sites = name, sites
        self._management, self._store, self._clock = management, store, clock
        self._looked = self._failed = 0.0
        self._trouble = ""

    # said by an operator

    def invite(self, site: str, terms: InvitationTerms, *, again: bool) -> Invitation:
        """Make a token for a site.

        Raises:
            JoinError: The name is taken, and `again` was not said.
            BrokerError: The management API, which joining needs, does not work.
            StoreError: The store is out of reach, or makes no users.
        """
        self._management.users()  # found out now, not when the site is waiting
        now, secret = self._clock(), new_secret()
        expires_at = now + terms.hours * 3600
        invited = InvitedSite(site, "invited", terms.max_clients, terms.max_rows, "", "", "", now)
        token = Token(secrets.token_hex(8), site, store_hash(secret), expires_at, "")
        acl.users(self._store)
        replaced = self._sites.invite(invited, token, again=again)
        if replaced is not None:
            acl.revoke(self._store, join_user(replaced.token_id))
        self._open_door(token)
        return Invitation(
            token_id=token.token_id,
            site=site,
            name=self._name,
            broker=terms.broker,
            store=terms.store,
            ca=terms.ca,
            secret=secret,
            expires_at=expires_at,
        )

    def revoke(self, site: str) -> InvitedSite:
        """End a site's access at once, connections included; returns what it was.

        What it sent before stays in the model: averages cannot be taken apart.

        Raises:
            JoinError: No such site takes part.
            BrokerError: RabbitMQ could not be told; the store and the file were.
            StoreError: The store could not be told; the file was.
        """
        was = self._sites.revoke(site, self._clock())
        user = site_user(self._name, site)
        acl.revoke(self._store, user)
        for token in self._sites.tokens():
            if token.site == site and not token.answer:
                reason = f"site {site} was revoked on {format_time(self._clock())}"
                self._answer(token, JoinAnswer(state="revoked", reason=reason))
        self._management.delete_user(user)
        return was

    # asked by the coordinator, at every pulse

    def active(self) -> Mapping[str, Allowance]:
        """What each site that has joined may bring."""
        joined = (site for site in self._sites.all() if site.state == "joined")
        return MappingProxyType(
            {site.name: Allowance(site.max_clients, site.max_rows) for site in joined}
        )

    def user(self, site: str) -> str:
        """The broker's user of a site."""
        return site_user(self._name, site)

    def pulse(self) -> list[LogEvent]:
        """Answer who asks to join, and give the servers back the users that they have lost."""
        now = self._clock()
        if now - self._failed < RETRY_S or not self._sites.all():
            return []
        try:
            notes = [note for token in self._sites.tokens() for note in self._attend(token, now)]
            self._restore(now)
        except (BrokerError, StoreError) as error:
            self._failed = now
            if error.what == self._trouble:
                return []
            self._trouble = error.what
            return [LogEvent("warning", "sites", f"invited sites have to wait: {error}"[:500])]
        self._trouble = ""
        return notes

    def _attend(self, token: Token, now: float) -> list[LogEvent]:
        if token.answer:
            return []
        # Before its request is looked at: who asked in time cannot be told from who did not.
        if now >= token.expires_at:
            reason = (
                f"the join token of site {token.site} expired on {format_time(token.expires_at)}"
            )
            self._answer(token, JoinAnswer(state="expired", reason=reason))
            return [LogEvent("info", "sites", f"{reason}: nobody joined with it")]
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
        again = user in self._management.users()
        self._management.put_user(user, request.broker_hash, permission(self._name, token.site))
        acl.grant(self._store, user, acl.site_rules(self._name, token.site, request.store_hash))
        if again:  # its old credentials end here
            self._management.disconnect(user)
            acl.disconnect(self._store, user)
        self._sites.join(token, request.broker_hash, request.store_hash, request.host, now)
        where = f" on {format_time(now)}" + (f" by {request.host}" if request.host else "")
        reason = f"the join token of site {token.site} was used{where}"
        self._answer(token, JoinAnswer(state="admitted", request=digest, reason=reason))
        text = f"site {token.site} has joined from {request.host} ({request.software})"
        return [LogEvent("info", "sites", text[:500])]

    def _refuse(self, token: Token, digest: str, why: str) -> list[LogEvent]:
        reason = f"site {token.site} cannot join: {why}"[:500]
        # Not written down as an answer: the same token may be tried again with the right software.
        told = JoinAnswer(state="refused", request=digest, reason=reason)
        if self._store.get_join_answer(token.token_id) == (raw := told.model_dump_json().encode()):
            return []
        self._store.put_join_answer(token.token_id, raw)
        return [LogEvent("warning", "sites", reason)]

    def _answer(self, token: Token, answer: JoinAnswer) -> None:
        """Tell the holder of a token, who from now on can only read that."""
        text = answer.model_dump_json()
        self._store.put_join_answer(token.token_id, text.encode())
        rules = acl.join_rules(token.token_id, token.secret_hash, used=True)
        acl.grant(self._store, join_user(token.token_id), rules)
        self._sites.answer(token.token_id, text)

    def _restore(self, now: float) -> None:
        known = acl.users(self._store)
        for token in self._sites.tokens():
            if join_user(token.token_id) not in known:
                self._open_door(token)
        joined = [site for site in self._sites.all() if site.state == "joined"]
        for site in joined:
            user = site_user(self._name, site.name)
            if user not in known:
                rules = acl.site_rules(self._name, site.name, site.store_hash)
                acl.grant(self._store, user, rules)
        if not joined or now - self._looked < LOOK_S:
            return
        known = self._management.users()
        for site in joined:
            user = site_user(self._name, site.name)
            if user not in known:
                allowed = permission(self._name, site.name)
                self._management.put_user(user, site.broker_hash, allowed)
        self._looked = now

    def _open_door(self, token: Token) -> None:
        if token.answer:
            self._store.put_join_answer(token.token_id, token.answer.encode())
        rules = acl.join_rules(token.token_id, token.secret_hash, used=bool(token.answer))
        acl.grant(self._store, join_user(token.token_id), rules)
