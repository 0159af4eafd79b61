"""Static checks of the container files; tests/compose runs them."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from common.config import loader
from tests.compose.run import VERSIONS
from tests.support.paths import ROOT, own_packages

BASE, TLS, GPU = (f"docker-compose{part}.yml" for part in ("", ".tls", ".gpu"))
LOOPBACK = "127.0.0.1:"


def services(name: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / name).read_text())["services"]
    return found


def ports(name: str) -> list[str]:
    return [port for service in services(name).values() for port in service.get("ports", [])]


def test_the_base_publishes_to_this_machine_only() -> None:
    assert ports(BASE) and all(port.startswith(LOOPBACK) for port in ports(BASE))


def test_with_tls_only_the_encrypted_ports_are_opened() -> None:
    opened = [port.rpartition(":")[2] for port in ports(TLS) if not port.startswith(LOOPBACK)]
    assert opened == ["5671", "6380"]


@pytest.mark.parametrize("name", ["FCCL_BROKER_PASSWORD", "FCCL_STORE_PASSWORD"])
def test_with_tls_a_password_has_no_default(name: str) -> None:
    text = (ROOT / TLS).read_text()
    assert f"${{{name}:?" in text and not re.search(rf"\${{{name}:?-", text)


@pytest.mark.parametrize("name", [BASE, TLS, GPU])
def test_older_and_newer_compose_read_the_files(name: str) -> None:
    whole = yaml.safe_load((ROOT / name).read_text())
    assert not {"version", "name", "include"} & set(whole)


def test_images_are_pinned_to_a_release() -> None:
    images = {service.get("image", "fccl:local") for service in services(BASE).values()}
    froms = re.findall(r"^FROM (\S+:\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    for image in (images - {"fccl:local"}) | set(froms):
        assert re.search(r":\d+\.\d+", image), image


def test_the_image_holds_every_package_and_nothing_else() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    allowed = {line.removeprefix("!") for line in lines if line.startswith("!")}
    assert "*" in lines
    files = {name for name in allowed if (ROOT / name).is_file()}
    assert allowed - files == own_packages()
    assert {"pyproject.toml", "constraints.txt"} <= files


def test_every_service_has_a_memory_limit_an_init_and_a_restart_policy() -> None:
    for name, service in services(BASE).items():
        assert service["mem_limit"] and service["init"], name
        assert name in ("tui", "web") or service["restart"], name


def test_the_plan_of_compose_is_sft_then_dpo_of_gpt2_or_offline() -> None:
    config = loader.load(ROOT / "configs/compose.toml", {})
    without = loader.apply_offline(config)
    assert [phase.objective for phase in config.phase] == ["sft", "dpo"]
    assert (config.model.name, without.model.name) == ("gpt2", "offline:gpt2-tiny")
    assert without.phase[0].lr > config.phase[0].lr


def test_the_compose_tests_expect_the_versions_of_their_plan() -> None:
    config = loader.load(ROOT / "tests/compose/federation.toml", {})
    assert sum(phase.versions for phase in config.phase) == VERSIONS
