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

from cli.doctor import servers as server_checks
from cli.doctor.checks import CheckContext, CheckResult
from cli.doctor.command import command
from cli.services import servers
from cli.services.ports import free_port
from cli.services.rabbitmq_server import PrivateRabbitMQ
from cli.services.redis_server import PrivateRedis
from common.config.loader import parse
from common.errors import BrokerError, StoreError
from common.store.errors import StorePermissionError
from common.store.store import connect
from tests.support.servers import find_binaries

SECRET = "sesame"


@dataclass(frozen=True)
class ServerUrls:
    """URLs of the servers, for an administrator and for a user with few rights."""

    amqp: str
    redis: str
    management: str
    poor_amqp: str
    poor_redis: str


@pytest.fixture(scope="module")
def urls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerUrls]:
    find_binaries()
    folder = tmp_path_factory.mktemp("doctor")
    rabbitmq = PrivateRabbitMQ(folder / "rabbitmq", free_port(), management=free_port())
    store = PrivateRedis(folder / "redis", free_port())
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
        yield ServerUrls(
            rabbitmq.url,
            store.url,
            management,
            rabbitmq.url.replace("guest:guest", f"poor:{SECRET}"),
            store.url.replace("://", f"://poor:{SECRET}@"),
        )
    finally:
        servers.stop(rabbitmq)
        servers.stop(store)


def context_for(urls: ServerUrls, side: str, **changed: str) -> CheckContext:
    table = {
        "broker": {"url": changed.get("amqp", urls.amqp), "management": urls.management},
        "store": {"url": changed.get("redis", urls.redis)},
    }
    config = parse(table, "here")
    return CheckContext(
        config, "worker" if side == "worker" else "coordinator", None, Path("cache")
    )


def limited_user(urls: ServerUrls, side: str) -> CheckContext:
    return context_for(urls, side, amqp=urls.poor_amqp, redis=urls.poor_redis)


def test_working_servers_are_reported_with_their_versions(urls: ServerUrls) -> None:
    here = context_for(urls, "coordinator")
    broker, store = server_checks.check_broker(here), server_checks.check_store(here)
    assert broker.status == "ok" and "RabbitMQ" in broker.text and "user guest" in broker.text
    assert store.status == "ok" and "Redis" in store.text and "in use" in store.text
    assert server_checks.check_clock(here).status == "ok"
    management = server_checks.check_management(here)
    assert management.status == "ok" and "administrator" in management.text
    assert server_checks.check_run(here) == CheckResult("run", "ok", "no run federation yet")


def test_a_coordinator_that_may_not_declare_fails_and_a_worker_need_not(urls: ServerUrls) -> None:
    check = server_checks.check_broker(limited_user(urls, "coordinator"))
    assert check.status == "fail" and "may not declare" in check.text
    assert SECRET not in check.text + check.remedy
    assert server_checks.check_broker(limited_user(urls, "worker")).status == "ok"


def test_a_user_who_is_no_administrator_is_distinguished_from_a_wrong_password(
    urls: ServerUrls,
) -> None:
    check = server_checks.check_management(limited_user(urls, "coordinator"))
    assert check.status == "warn"
    wrong = context_for(urls, "coordinator", amqp=urls.poor_amqp.replace(SECRET, "x"))
    assert "refuses the user" in server_checks.check_management(wrong).text


def test_a_site_that_may_not_read_memory_or_time_passes_its_checks(urls: ServerUrls) -> None:
    store = server_checks.check_store(limited_user(urls, "worker"))
    assert store.status == "ok" and "in use" not in store.text
    clock = server_checks.check_clock(limited_user(urls, "worker"))
    assert clock.status == "ok" and "cannot be compared" in clock.text


def test_a_missing_permission_is_distinguished_from_a_wrong_password(urls: ServerUrls) -> None:
    store = connect(urls.poor_redis)
    with pytest.raises(StorePermissionError, match="no permission") as denied:
        store.set_run("name", "id")
    with pytest.raises(StoreError, match="refuses this user or password") as refused:
        connect(urls.poor_redis.replace(SECRET, f"{SECRET}2"))
    assert SECRET not in f"{denied.value} {refused.value}"


def test_a_server_that_is_gone_fails_its_own_check_only(urls: ServerUrls) -> None:
    gone = context_for(urls, "coordinator", redis=f"redis://:{SECRET}@127.0.0.1:{free_port()}/0")
    with pytest.raises(StoreError):
        server_checks.check_store(gone)
    assert server_checks.check_clock(gone).status == server_checks.check_run(gone).status == "warn"
    assert server_checks.check_broker(gone).status == "ok"
    gone = context_for(urls, "coordinator", amqp=f"amqp://127.0.0.1:{free_port()}/")
    with pytest.raises(BrokerError):
        server_checks.check_broker(gone)
    assert server_checks.check_store(gone).status == "ok"


def test_the_command_reports_every_check_and_writes_nothing(
    urls: ServerUrls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def contents() -> tuple[object, ...]:
        with redis.Redis.from_url(urls.redis) as client:
            keys = client.keys("*")
        names = [
            each["name"]
            for kind in ("queues", "exchanges")
            for each in httpx.get(f"{urls.management}/api/{kind}", auth=("guest", "guest")).json()
        ]
        return keys, names, sorted(path.name for path in tmp_path.iterdir())

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FCCL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("FCCL_BROKER__URL", urls.amqp)
    monkeypatch.setenv("FCCL_BROKER__MANAGEMENT", urls.management)
    monkeypatch.setenv("FCCL_STORE__URL", urls.redis)
    before = contents()
    result = CliRunner().invoke(command, ["--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    found = {check["name"]: check["status"] for check in json.loads(result.output)["checks"]}
    assert set(found) >= {"broker", "store", "clock", "run", "software", "model", "data", "disk"}
    assert "fail" not in found.values()
    assert contents() == before
