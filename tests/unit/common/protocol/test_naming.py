"""A permission for the runs of one name never covers those of another."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase

from hypothesis import given
from hypothesis import strategies as st

from broker.protocol import Site, Topology
from broker.rabbit.management import permission
from common.protocol.naming import new_run_id, runs_glob, runs_regex
from common.store.acl import site_rules

names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}", fullmatch=True)
sites = st.from_regex(r"[a-z0-9-]{1,32}", fullmatch=True).filter(lambda site: site != "local")


@given(names)
def test_patterns_of_a_name_match_its_runs(name: str) -> None:
    run = new_run_id(name)
    Topology(run)  # it fits a queue's name
    assert re.fullmatch(runs_regex(name), run)
    assert fnmatchcase(run, runs_glob(name))


@given(names, names)
def test_patterns_of_a_name_match_no_run_of_another(name: str, other: str) -> None:
    if name != other:
        assert not re.fullmatch(runs_regex(name), new_run_id(other))
        assert not fnmatchcase(new_run_id(other), runs_glob(name))


@given(names, sites, sites)
def test_a_sites_permissions_cover_its_two_names_and_no_others(
    name: str, site: str, other: str
) -> None:
    topology = Topology(
        new_run_id(name), tuple(Site(s) for s in dict.fromkeys((site, other, "local")))
    )
    granted = permission(name, site)
    every = (*topology.queues, "", "amq.default", "amq.fanout")
    read = [queue for queue in every if re.search(granted.read, queue)]
    write = [queue for queue in every if re.search(granted.write, queue)]
    assert read == [topology.task_queue(Site(site))]
    assert write == [topology.update_exchange(Site(site))]
    assert not [queue for queue in every if queue and re.search(granted.configure, queue)]


@given(names, sites, sites)
def test_a_sites_keys_are_its_own(name: str, site: str, other: str) -> None:
    run = new_run_id(name)
    rules = site_rules(name, site, "0" * 64)
    writable = [rule.partition("~")[2] for rule in rules if rule.startswith(("%RW~", "%W~"))]
    readable = [rule.partition("~")[2] for rule in rules if rule.startswith(("%RW~", "%R~"))]
    own = f"fccl:{run}:heartbeat:{site}:w"
    assert [key for key in writable if fnmatchcase(own, key)]
    if other == site:
        return
    for kind in ("heartbeat", "receipt", "member"):
        key = f"fccl:{run}:{kind}:{other}:x"
        assert not [each for each in (*readable, *writable) if fnmatchcase(key, each)]
    for key in (f"fccl:{run}:version", f"fccl:{run}:info", f"fccl:run:{name}"):
        assert not [each for each in writable if fnmatchcase(key, each)]
    assert "+@all" not in rules and "-@all" in rules and "nopass" not in rules
