"""Tests of `fccl doctor` with real servers, as an administrator and as a user with few rights."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import redis
from click.testing import CliRunner

from cli.doctor import servers as look
from cli.doctor.checks import CheckContext, CheckResult
from cli.doctor.command import command
from cli.services import servers
from cli.services.ports import free_port
from common.config.loader import parse
from common.errors import BrokerError, StoreError
from common.store.errors import StorePermissionError
from common.store.store import connect
from tests.support.servers import find_binaries

SECRET = "sesame"


@dataclass(frozen=True)
class Place:
    """URLs of the servers, for an administrator and for a user with few rights."""

    amqp: str
    redis: str
    management: str
    poor_amqp: str
    poor_redis: str


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    find_binaries()
    folder = tmp_path_factory.mktemp("doctor")
    rabbitmq = servers.PrivateRabbitMQ(folder / "rabbitmq", free_port(), management=free_port())
    store = servers.PrivateRedis(folder / "redis", free_port())
    try:
        servers.start(rabbitmq)
        servers.start(store)
        management = str(rabbitmq.management_url)
        with httpx.Client(auth=("guest", "guest"), base_url=f"{management}/api") as api:
            api.put("/users/poor", json={"password": SECRET, "tags": ""}).raise_for_status()
            rights = {"configure": "^$", "write": "^$", "read": "^fccl"}
            api.put("/permissions/%2F/poor", json=rights).raise_for_status()
        with redis.Redis.from_url(store.url) as client:
            client.acl_setuser(
                "poor", enabled=True, passwords=f"+{SECRET}", keys="*", commands=["+ping", "+get"]
            )
        yield Place(
            rabbitmq.url,
            store.url,
            management,
            rabbitmq.url.replace("guest:guest", f"poor:{SECRET}"),
            store.url.replace("://", f"://poor:{SECRET}@"),
        )
    finally:
        servers.stop(rabbitmq)
        servers.stop(store)


def situation(place: Place, side: str, **urls: str) -> CheckContext:
    table = {
        "broker": {"url": urls.get("amqp", place.amqp), "management": place.management},
        "store": {"url": urls.get("redis", place.redis)},
    }
    config = parse(table, "here")
    return CheckContext(
        config, "worker" if side == "worker" else "coordinator", None, Path("cache")
    )


def poor(place: Place, side: str) -> CheckContext:
    return situation(place, side, amqp=place.poor_amqp, redis=place.poor_redis)


def test_working_servers_are_reported_with_their_versions(place: Place) -> None:
    here = situation(place, "coordinator")
    broker, store = look.check_broker(here), look.check_store(here)
    assert broker.status == "ok" and "RabbitMQ" in broker.text and "user guest" in broker.text
    assert store.status == "ok" and "Redis" in store.text and "MiB in use" in store.text
    assert look.check_clock(here).status == "ok"
    management = look.check_management(here)
    assert management.status == "ok" and "administrator" in management.text
    assert look.check_run(here) == CheckResult("run", "ok", "no run federation yet")


def test_a_coordinator_that_may_not_declare_fails_and_a_worker_need_not(place: Place) -> None:
    check = look.check_broker(poor(place, "coordinator"))
    assert check.status == "fail" and "may not declare" in check.text
    assert SECRET not in check.text + check.remedy
    assert look.check_broker(poor(place, "worker")).status == "ok"


def test_a_user_who_is_no_administrator_is_distinguished_from_a_wrong_password(
    place: Place,
) -> None:
    check = look.check_management(poor(place, "coordinator"))
    assert check.status == "warn"
    wrong = situation(place, "coordinator", amqp=place.poor_amqp.replace(SECRET, "x"))
    assert "refuses the user" in look.check_management(wrong).text


def test_a_site_that_may_not_read_memory_or_time_passes_its_checks(place: Place) -> None:
    store = look.check_store(poor(place, "worker"))
    assert store.status == "ok" and "MiB" not in store.text
    clock = look.check_clock(poor(place, "worker"))
    assert clock.status == "ok" and "cannot be compared" in clock.text


def test_a_missing_permission_is_distinguished_from_a_wrong_password(place: Place) -> None:
    store = connect(place.poor_redis)
    with pytest.raises(StorePermissionError, match="no permission") as denied:
        store.set_run("name", "id")
    with pytest.raises(StoreError, match="refuses this user or password") as refused:
        connect(place.poor_redis.replace(SECRET, f"{SECRET}2"))
    assert SECRET not in f"{denied.value} {refused.value}"


def test_a_server_that_is_gone_fails_its_own_check_only(place: Place) -> None:
    gone = situation(place, "coordinator", redis=f"redis://:{SECRET}@127.0.0.1:{free_port()}/0")
    with pytest.raises(StoreError):
        look.check_store(gone)
    assert look.check_clock(gone).status == look.check_run(gone).status == "warn"
    assert look.check_broker(gone).status == "ok"
    gone = situation(place, "coordinator", amqp=f"amqp://127.0.0.1:{free_port()}/")
    with pytest.raises(BrokerError):
        look.check_broker(gone)
    assert look.check_store(gone).status == "ok"


def test_the_command_reports_every_check_and_writes_nothing(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def contents() -> tuple[object, ...]:
        with redis.Redis.from_url(place.redis) as client:
            keys = client.keys("*")
        names = [
            each["name"]
            for kind in ("queues", "exchanges")
            for each in httpx.get(f"{place.management}/api/{kind}", auth=("guest", "guest")).json()
        ]
        return keys, names, sorted(path.name for path in tmp_path.iterdir())

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FCCL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("FCCL_BROKER__URL", place.amqp)
    monkeypatch.setenv("FCCL_BROKER__MANAGEMENT", place.management)
    monkeypatch.setenv("FCCL_STORE__URL", place.redis)
    before = contents()
    result = CliRunner().invoke(command, ["--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    found = {check["name"]: check["status"] for check in json.loads(result.output)["checks"]}
    assert set(found) >= {"broker", "store", "clock", "run", "software", "model", "data", "disk"}
    assert "fail" not in found.values()
    assert contents() == before
