"""Tests of joining with a token, and of all the ways in which a token is refused."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest
from click.testing import CliRunner

from broker.protocol import BrokerState, BrokerStatus
from broker.rabbit import broker as rabbit
from broker.rabbit.management import ManagementApi, Permission, permission
from cli.doctor.command import command as doctor
from common.errors import BrokerError, FcclError, JoinError, StoreAccessError, StoreError
from common.protocol.invitation import Invitation, broker_hash
from common.protocol.naming import join_user, site_user
from common.store import acl
from common.store.store import connect
from common.urls import SITE_STORE, parse_url
from coordinator.core.events import LogEvent
from coordinator.sites.credentials import InvitationTerms, SiteAccess
from coordinator.sites.registry import SiteRegistry
from tests.support.processes import eventually
from tests.support.tls_servers import TlsServers, certs
from worker.site import identity
from worker.site import join as joining
from worker.site.identity import Identity

pytestmark = pytest.mark.servers


class InvitingCoordinator:
    """A coordinator's access to sites, polled as the coordinator's main loop does."""

    def __init__(self, servers: TlsServers, folder: Path) -> None:
        self.name = f"run{uuid4().hex[:8]}"
        self.servers = servers
        self.clock_offset_s = 0.0
        self.sites = SiteRegistry(folder / "sites.db")
        self.store = connect(servers.store)
        management = ManagementApi(servers.broker, servers.management)
        self.access = SiteAccess(self.name, self.sites, management, self.store, self.clock)
        self.management = management
        self.events: list[LogEvent] = []
        self._stop = threading.Event()

    def clock(self) -> float:
        return time.time() + self.clock_offset_s

    def invite(self, site: str = "hospital-a", *, again: bool = False) -> Invitation:
        servers = self.servers
        terms = InvitationTerms(
            hours=1.0,
            broker=servers.amqps.replace("guest:guest@", ""),
            store=servers.rediss,
            ca=Path(servers.ca).read_text(),
            max_clients=1,
            max_rows=100,
        )
        return self.access.invite(site, terms, again=again)

    def poll(self) -> None:
        while not self._stop.wait(0.05):
            self.events += self.access.poll()

    @contextmanager
    def open(self) -> Iterator[None]:
        """Run the coordinator's part while the block runs."""
        thread = threading.Thread(target=self.poll)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()
            self._stop.clear()


@pytest.fixture
def coordinator(tls_servers: TlsServers, tmp_path: Path) -> InvitingCoordinator:
    return InvitingCoordinator(tls_servers, tmp_path)


def join(invitation: Invitation, place: Path, host: str = "ward7", skew: float = 0.0) -> Identity:
    found = joining.join(
        invitation,
        place,
        host=host,
        software="fccl test",
        stop=threading.Event(),
        on_event=lambda kind, text: None,
        clock=lambda: time.time() + skew,
    )
    assert found is not None
    return found


def refused(invitation: Invitation, place: Path, skew: float = 0.0) -> str:
    """Return the one line of the error with which joining ends."""
    with pytest.raises(FcclError) as caught:
        join(invitation, place, "other", skew)
    text = str(caught.value)
    assert "\n" not in text and invitation.secret not in text
    assert not (place / "identity.json").exists()
    return text


def test_a_token_becomes_credentials_that_both_servers_take(
    coordinator: InvitingCoordinator, tmp_path: Path
) -> None:
    place = tmp_path / "a"
    with coordinator.open():
        mine = join(coordinator.invite(), place)
    config = identity.worker_config(mine, place)
    rabbit.connect(config.broker.url, ca=config.broker.ca).close()
    connect(config.store.url, ca=config.store.ca).ping()
    assert (place / "identity.json").stat().st_mode & 0o77 == 0
    assert mine.password not in coordinator.sites.path.read_bytes().decode("latin-1")
    assert dict(coordinator.access.allowances())["hospital-a"].max_rows == 100
    assert "joined from ward7" in coordinator.events[0].text


def test_the_same_machine_may_use_its_token_again(
    coordinator: InvitingCoordinator, tmp_path: Path
) -> None:
    invitation = coordinator.invite()
    with coordinator.open():
        mine = join(invitation, tmp_path / "a")
    assert join(invitation, tmp_path / "a") == mine  # without a request


def test_a_machine_that_died_while_it_asked_asks_again_with_the_same_password(
    coordinator: InvitingCoordinator, tmp_path: Path
) -> None:
    invitation, stop = coordinator.invite(), threading.Event()
    stop.set()
    asked = joining.join(
        invitation, tmp_path / "a", host="h", software="s", stop=stop, on_event=lambda *_: None
    )
    assert asked is None
    with coordinator.open():
        eventually("admitted", coordinator.access.allowances)  # while nobody waits for it
    mine = join(invitation, tmp_path / "a")
    config = identity.worker_config(mine, tmp_path / "a")
    rabbit.connect(config.broker.url, ca=config.broker.ca).close()


def test_a_used_token_says_when_and_by_whom(
    coordinator: InvitingCoordinator, tmp_path: Path
) -> None:
    invitation = coordinator.invite()
    with coordinator.open():
        join(invitation, tmp_path / "a")
        text = refused(invitation, tmp_path / "b")
    assert "token of site hospital-a was used on" in text and "by ward7" in text
    assert "fccl invite hospital-a --again" in text


def test_a_used_token_cannot_ask_for_other_credentials(
    coordinator: InvitingCoordinator, tmp_path: Path
) -> None:
    invitation = coordinator.invite()
    with coordinator.open():
        join(invitation, tmp_path / "a")
    login = join_user(invitation.token_id)
    url = parse_url(invitation.store, SITE_STORE).with_login(login, invitation.secret)
    store = connect(url, ca=str(tmp_path / "a" / "ca.pem"))
    with pytest.raises(StoreAccessError):
        store.put_join_request(invitation.token_id, b"{}")


def test_a_replaced_token_is_not_known(coordinator: InvitingCoordinator, tmp_path: Path) -> None:
    old = coordinator.invite()
    new = coordinator.invite(again=True)
    assert "does not know this token" in refused(old, tmp_path / "a")
    with coordinator.open():
        join(new, tmp_path / "b")


def test_a_second_token_ends_the_first_machines_credentials_once_it_is_used(
    coordinator: InvitingCoordinator, tmp_path: Path
) -> None:
    with coordinator.open():
        first = join(coordinator.invite(), tmp_path / "a")
        config = identity.worker_config(first, tmp_path / "a")
        second = coordinator.invite(again=True)
        rabbit.connect(
            config.broker.url, ca=config.broker.ca
        ).close()  # the new token is not used yet
        join(second, tmp_path / "b")
    with pytest.raises(BrokerError, match="refuses this user"):
        rabbit.connect(config.broker.url, ca=config.broker.ca)
    with pytest.raises(StoreAccessError):
        connect(config.store.url, ca=config.store.ca)


def test_a_token_that_was_revoked_before_its_use_is_refused(
    coordinator: InvitingCoordinator, tmp_path: Path
) -> None:
    invitation = coordinator.invite()
    coordinator.access.revoke("hospital-a")
    with coordinator.open():
        assert "site hospital-a was revoked on" in refused(invitation, tmp_path / "a")


def test_a_token_that_has_expired_is_refused(
    coordinator: InvitingCoordinator, tmp_path: Path
) -> None:
    invitation = coordinator.invite()
    coordinator.clock_offset_s = 3601.0  # the coordinator's clock, an hour later
    with coordinator.open():
        assert "expired on" in refused(invitation, tmp_path / "a")
    assert "nobody joined with it" in coordinator.events[-1].text


def test_a_token_that_was_used_while_no_coordinator_looked_expires_all_the_same(
    coordinator: InvitingCoordinator, tmp_path: Path
) -> None:
    invitation, stop = coordinator.invite(), threading.Event()
    stop.set()  # it asks, and does not wait
    joining.join(
        invitation, tmp_path / "a", host="h", software="s", stop=stop, on_event=lambda *_: None
    )
    assert coordinator.store.get_join_request(invitation.token_id) is not None
    coordinator.clock_offset_s = 3601.0
    assert "nobody joined with it" in coordinator.access.poll()[-1].text
    assert "hospital-a" not in coordinator.access.allowances()


def test_a_token_of_another_federation_is_refused(
    coordinator: InvitingCoordinator, tmp_path: Path
) -> None:
    foreign = coordinator.invite().model_copy(update={"token_id": "0" * 16})
    text = refused(foreign, tmp_path / "a")
    assert "does not know this token" in text and "another federation" in text


def test_servers_signed_by_another_authority_are_refused(
    coordinator: InvitingCoordinator, tmp_path: Path
) -> None:
    certs(tmp_path / "foreign")
    other = (tmp_path / "foreign/ca.pem").read_text()
    invitation = coordinator.invite().model_copy(update={"ca": other})
    assert "certificate of an unknown authority" in refused(invitation, tmp_path / "a")


@pytest.mark.parametrize(("skew", "way"), [(1000.0, "ahead of"), (-1000.0, "behind")])
def test_a_machine_whose_clock_is_far_off_is_refused(
    coordinator: InvitingCoordinator, tmp_path: Path, skew: float, way: str
) -> None:
    text = refused(coordinator.invite(), tmp_path / "a", skew)
    assert f"clock is 1000 s {way} the store's" in text or f"999 s {way}" in text


def test_a_worker_of_another_protocol_may_come_back_with_the_right_one(
    coordinator: InvitingCoordinator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    invitation = coordinator.invite()
    with coordinator.open():
        monkeypatch.setattr(joining, "PROTOCOL", 2)
        text = refused(invitation, tmp_path / "a")
        assert "speaks protocol 2, this federation 1" in text
        monkeypatch.undo()
        join(invitation, tmp_path / "a")


def test_a_broker_that_is_out_of_reach_is_named(
    coordinator: InvitingCoordinator, tmp_path: Path
) -> None:
    invitation = coordinator.invite().model_copy(update={"broker": "amqps://localhost:1/"})
    assert "cannot reach RabbitMQ at localhost:1" in refused(invitation, tmp_path / "a")


def test_a_store_that_is_out_of_reach_is_named(
    coordinator: InvitingCoordinator, tmp_path: Path
) -> None:
    invitation = coordinator.invite().model_copy(update={"store": "rediss://localhost:1/0"})
    assert "store at localhost:1/0 does not answer" in refused(invitation, tmp_path / "a")


def test_a_site_is_not_invited_twice_without_again(coordinator: InvitingCoordinator) -> None:
    coordinator.invite()
    with pytest.raises(JoinError, match="site hospital-a is taken: invited on"):
        coordinator.invite()


def test_a_site_that_was_never_invited_cannot_be_revoked(coordinator: InvitingCoordinator) -> None:
    coordinator.invite("hospital-b")
    with pytest.raises(JoinError, match="no site hospital-a was invited; invited: hospital-b"):
        coordinator.access.revoke("hospital-a")


def test_without_the_management_api_no_site_is_invited(coordinator: InvitingCoordinator) -> None:
    management = ManagementApi(coordinator.servers.broker, "http://127.0.0.1:1")
    closed = SiteAccess(
        coordinator.name, coordinator.sites, management, coordinator.store, coordinator.clock
    )
    coordinator.access = closed
    with pytest.raises(BrokerError, match=r"management API at .* does not answer"):
        coordinator.invite()
    assert coordinator.sites.all() == []


def test_a_revoked_site_loses_its_access_to_both_servers_at_once(
    coordinator: InvitingCoordinator, tmp_path: Path
) -> None:
    with coordinator.open():
        mine = join(coordinator.invite(), tmp_path / "a")
    config = identity.worker_config(mine, tmp_path / "a")
    statuses: list[BrokerStatus] = []
    broker = rabbit.connect(config.broker.url, statuses.append, ca=config.broker.ca)
    store = connect(config.store.url, ca=config.store.ca)
    coordinator.access.revoke("hospital-a")
    with pytest.raises(StoreError):
        store.ping()
    eventually(
        "the connection is closed", lambda: any(s.state is BrokerState.LOST for s in statuses)
    )
    eventually("and refused", lambda: any("refuses this user" in s.detail for s in statuses))
    broker.close()
    assert not coordinator.access.allowances()


def test_servers_that_lost_their_users_get_them_back(
    coordinator: InvitingCoordinator, tmp_path: Path
) -> None:
    invitation = coordinator.invite()
    pending = coordinator.invite("hospital-b")
    with coordinator.open():
        mine = join(invitation, tmp_path / "a")
    user, token_user = site_user(coordinator.name, "hospital-a"), join_user(pending.token_id)
    acl.revoke(coordinator.store, user)
    acl.revoke(coordinator.store, token_user)
    coordinator.management.delete_user(user)
    coordinator.clock_offset_s = 61.0  # RabbitMQ's users are checked once a minute
    with coordinator.open():
        eventually(
            "the store has the users again",
            lambda: {user, token_user} <= acl.users(coordinator.store),
        )
        eventually("the broker has the user again", lambda: user in coordinator.management.users())
        join(pending, tmp_path / "b")
        config = identity.worker_config(mine, tmp_path / "a")
        rabbit.connect(config.broker.url, ca=config.broker.ca).close()
        connect(config.store.url, ca=config.store.ca).ping()


def test_a_broker_user_that_has_lost_password_and_permissions_gets_them_back(
    coordinator: InvitingCoordinator, tmp_path: Path
) -> None:
    with coordinator.open():
        mine = join(coordinator.invite(), tmp_path / "a")
    user, expected = (
        site_user(coordinator.name, "hospital-a"),
        permission(coordinator.name, "hospital-a"),
    )
    before = coordinator.management.accounts()[user]
    assert before.permission == expected
    nothing = Permission("^$", "^$", "^$")
    coordinator.management.put_user(user, broker_hash("an older password"), nothing)
    coordinator.clock_offset_s = 61.0
    events = coordinator.access.poll()
    assert [event.level for event in events] == ["warning"]
    assert coordinator.management.accounts()[user] == before
    assert coordinator.access.poll() == []
    config = identity.worker_config(mine, tmp_path / "a")
    rabbit.connect(config.broker.url, ca=config.broker.ca).close()


def test_the_doctor_uses_the_credentials_of_the_site(
    coordinator: InvitingCoordinator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FCCL_STATE", str(tmp_path))
    with coordinator.open():
        join(coordinator.invite(), identity.identity_dir(tmp_path, coordinator.name, "hospital-a"))
    found = CliRunner().invoke(doctor, ["--site", "hospital-a", "--json"])
    checks = {check["name"]: check for check in json.loads(found.output)["checks"]}
    assert [checks[name]["status"] for name in ("broker", "store", "clock")] == ["ok"] * 3
    assert "management" not in checks and coordinator.name in checks["run"]["text"]
    other = CliRunner().invoke(doctor, ["--site", "hospital-z"])
    assert "has not joined as site hospital-z" in str(other.exception)


def test_an_unreadable_answer_is_an_error_and_no_traceback(
    coordinator: InvitingCoordinator, tmp_path: Path
) -> None:
    invitation = coordinator.invite()
    coordinator.store.put_join_answer(invitation.token_id, b"\xff")
    assert "answer cannot be read" in refused(invitation, tmp_path / "a")


def test_a_damaged_identity_is_an_error_and_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "identity.json").write_text("{")
    with pytest.raises(JoinError, match="cannot be read"):
        identity.load(tmp_path)
