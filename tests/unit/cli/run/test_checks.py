"""Runs that cannot start as they are configured are refused before anything is prepared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cli import checks
from cli.run.job import local_job
from common.config import loader
from common.config.config import FederationConfig
from common.errors import ConfigError, DataError
from coordinator.sites.registry import InvitedSite, SiteRegistry, Token


def configured(place: Path, **tables: Any) -> FederationConfig:
    return loader.parse({"run": {"dir": str(place)}, **tables}, "test")


def invite(config: FederationConfig, name: str, clients: int) -> None:
    site = InvitedSite(name, "invited", clients, 100, "", "", "", 0.0)
    SiteRegistry(config.run.sites).invite(site, Token(name, name, "hash", 1.0, ""), again=False)


def test_more_clients_than_can_join_are_refused(tmp_path: Path) -> None:
    config = configured(tmp_path, data={"clients": 2}, schedule={"min_clients": 4})
    invite(config, "alpha", 1)
    with pytest.raises(ConfigError, match=r"dealt rows \(2\) and those of invited sites \(1\)"):
        checks.check_coordinator(config, "start")
    invite(config, "beta", 1)
    checks.check_coordinator(config, "start")
    SiteRegistry(config.run.sites).revoke("beta", 2.0)
    with pytest.raises(ConfigError, match="min_clients is 4"):
        checks.check_coordinator(config, "start")


def test_a_run_of_sites_only_may_wait_for_sites_that_are_invited_later(tmp_path: Path) -> None:
    data, source = {"clients": 0}, {"contribution_source": "federated"}
    checks.check_coordinator(configured(tmp_path, data=data, aggregation=source), "start")


def test_one_client_has_nobody_to_score_its_updates(tmp_path: Path) -> None:
    config = configured(
        tmp_path, data={"clients": 1}, aggregation={"contribution_source": "federated"}
    )
    with pytest.raises(ConfigError, match="the run has one client"):
        checks.check_coordinator(config, "start")
    invite(config, "alpha", 1)
    checks.check_coordinator(config, "start")


@pytest.mark.parametrize(
    ("table", "what"),
    [
        ({"data": {"clients": 0}}, "leaves all rows to invited sites"),
        ({"schedule": {"min_clients": 5}}, "min_clients is 5, but the run has 4 clients"),
    ],
)
def test_a_demo_needs_its_clients_on_this_machine(
    tmp_path: Path, table: dict[str, Any], what: str
) -> None:
    with pytest.raises(ConfigError, match=what):
        checks.check_demo(configured(tmp_path, **table), "start")


@pytest.mark.parametrize(
    ("table", "key"),
    [
        ({"evaluation": {"rows": "none.jsonl"}}, "evaluation.rows"),
        ({"samples": {"prompts_file": "none.jsonl"}}, "samples.prompts_file"),
    ],
)
def test_files_that_do_not_exist_are_named_with_their_key(
    tmp_path: Path, table: dict[str, Any], key: str
) -> None:
    with pytest.raises(DataError, match=r"none\.jsonl does not exist") as caught:
        checks.check_coordinator(configured(tmp_path, data={"clients": 0}, **table), "start")
    assert caught.value.remedy == f"check {key}"


def test_a_worker_of_the_coordinators_own_site_has_nothing_to_train_in_a_run_of_sites_only(
    tmp_path: Path,
) -> None:
    with pytest.raises(ConfigError, match="own site has no clients"):
        local_job(configured(tmp_path, data={"clients": 0}), (), None)
