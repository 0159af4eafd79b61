"""Tests of `fccl doctor` without servers: how checks run and are reported, and this machine's."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cli.doctor import command, machine, servers
from cli.doctor.checks import CheckContext, CheckResult, CheckSpec, run_checks
from common.config.config import FederationConfig
from common.config.loader import parse
from common.errors import DataError, FcclError, ModelError
from learning.data.rows import write
from learning.synthetic.instructions import make_instructions as made


@pytest.fixture
def situation(tmp_path: Path) -> CheckContext:
    config = parse({"run": {"dir": str(tmp_path / "runs")}, "data": {"clients": 2}}, "here")
    return CheckContext(config, "coordinator", None, tmp_path / "cache")


def rows(path: Path, count: int = 40) -> Path:
    write(path, tuple(made(0, count)))
    return path


# How checks run


def fine(situation: CheckContext) -> CheckResult:
    return CheckResult("fine", "ok", "all is well")


def refused(situation: CheckContext) -> CheckResult:
    raise FcclError("it is refused", "do this")


def broken(situation: CheckContext) -> CheckResult:
    raise ValueError("two\nlines")


def test_a_check_that_raises_or_hangs_hides_no_other(situation: CheckContext) -> None:
    never = threading.Event()

    def hangs(situation: CheckContext) -> CheckResult:
        never.wait()
        return fine(situation)

    looks = {"refused": refused, "broken": broken, "fine": fine}
    examinations = [CheckSpec("hangs", hangs, 0.05)]
    examinations += [CheckSpec(name, look) for name, look in looks.items()]
    found = {check.name: check for check in run_checks(examinations, situation)}
    never.set()
    assert list(found) == ["hangs", "refused", "broken", "fine"]
    assert found["hangs"].status == "fail" and "no result within" in found["hangs"].text
    assert found["refused"] == CheckResult("refused", "fail", "it is refused", "do this")
    assert found["broken"].status == "fail" and found["broken"].text == "ValueError: two lines"
    assert found["fine"].status == "ok"


def run(monkeypatch: pytest.MonkeyPatch, checks: tuple[CheckSpec, ...], *args: str) -> Result:
    monkeypatch.setattr(command, "CHECKS", checks)
    monkeypatch.chdir("/")  # no federation.toml: doctor works without
    return CliRunner().invoke(command.command, args, catch_exceptions=False)


def test_the_report_names_each_status_and_fails_only_with_a_failed_check(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    warned = CheckSpec("warned", lambda s: CheckResult("warned", "warn", "odd", "mend it"))
    result = run(monkeypatch, (CheckSpec("fine", fine), warned))
    assert result.exit_code == 0
    assert "ok    fine" in result.output and "warn  warned" in result.output
    assert "mend it" in result.output
    result = run(monkeypatch, (CheckSpec("refused", refused), CheckSpec("fine", fine)))
    assert result.exit_code == 1
    assert "fail  refused" in result.output and "ok    fine" in result.output


def test_scripts_get_every_check_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    checks = (CheckSpec("refused", refused), CheckSpec("fine", fine))
    result = run(monkeypatch, checks, "--json")
    assert result.exit_code == 1
    assert json.loads(result.output)["checks"] == [
        {"name": "refused", "status": "fail", "text": "it is refused", "remedy": "do this"},
        {"name": "fine", "status": "ok", "text": "all is well", "remedy": ""},
    ]


def test_a_worker_skips_the_checks_of_what_only_a_coordinator_needs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    checks = (CheckSpec("management", refused), CheckSpec("fine", fine))
    result = run(monkeypatch, checks, "--side", "worker")
    assert result.exit_code == 0 and "management" not in result.output


# Judgements


@pytest.mark.parametrize(
    ("skew", "status", "says"),
    [
        (0.4, "ok", "0.4 s ahead"),
        (-7.0, "warn", "7.0 s behind"),
        (61.0, "fail", "61.0 s ahead"),
        (-3600.0, "fail", "behind"),
    ],
)
def test_clocks_may_differ_by_seconds_but_not_by_a_minute(
    skew: float, status: str, says: str
) -> None:
    check = servers.judge_skew(skew)
    assert check.status == status and says in check.text
    assert bool(check.remedy) == (status != "ok")


@pytest.mark.parametrize(
    ("url", "ca", "says"),
    [
        ("amqp://localhost/", None, None),
        ("amqp://127.0.0.2/", None, None),
        ("amqps://broker.example.org/", "ca.pem", None),
        ("amqp://broker.example.org/", None, "travel unencrypted"),
        ("amqp://localhost/", "ca.pem", "broker.ca is set but not used"),
    ],
)
def test_an_unencrypted_connection_to_another_machine_is_a_problem(
    url: str, ca: str | None, says: str | None
) -> None:
    found = servers.transport_problem(url, ca, "broker", "amqps")
    assert (found is None) == (says is None)
    assert says is None or (found is not None and says in found[0])


# This machine


def test_the_software_names_what_must_agree_on_both_sides(situation: CheckContext) -> None:
    check = machine.check_software(situation)
    assert check.status == "ok"
    assert all(
        word in check.text for word in ("fccl", "protocol 1 and 2", "Python", "torch", "peft")
    )


def test_a_source_is_read_and_its_unusable_lines_are_counted(
    situation: CheckContext, tmp_path: Path
) -> None:
    path = rows(tmp_path / "rows.jsonl")
    check = machine.check_data(replace(situation, data=path))
    assert check.status == "ok" and "40 rows" in check.text and "2 clients" in check.text
    with path.open("a") as file:
        file.write('{"nothing": 1}\nno json\n')
    check = machine.check_data(replace(situation, data=path))
    assert check.status == "warn"
    assert "2 cannot be used" in check.text and "line 41" in check.text


def test_rows_that_are_too_few_and_a_source_that_is_missing_fail(
    situation: CheckContext, tmp_path: Path
) -> None:
    check = machine.check_data(replace(situation, data=rows(tmp_path / "few.jsonl", 6)))
    assert check.status == "fail" and "too few" in check.text
    with pytest.raises(DataError, match="does not exist"):
        machine.check_data(replace(situation, data=tmp_path / "nowhere.jsonl"))


def test_a_run_of_sites_only_needs_no_rows_but_its_held_out_ones_are_checked(
    situation: CheckContext, tmp_path: Path
) -> None:
    config = situation.config
    data = config.data.model_copy(update={"clients": 0})
    only = config.model_copy(update={"data": data})
    check = machine.check_data(replace(situation, config=only))
    assert check.status == "ok" and "all rows stay at the sites" in check.text
    own = str(rows(tmp_path / "heldout.jsonl", 6))
    evaluation = config.evaluation.model_copy(update={"rows": own})
    check = machine.check_data(
        replace(situation, config=only.model_copy(update={"evaluation": evaluation}))
    )
    assert check.status == "ok" and check.text.endswith(f"6 rows of {own} held out")


def test_a_workers_folder_is_counted_by_client(situation: CheckContext, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    worker = replace(situation, side="worker", data=folder)
    with pytest.raises(DataError, match="no client's rows"):
        machine.check_data(worker)
    rows(folder / "client_0_sft.jsonl", 12)
    rows(folder / "client_3_sft.jsonl", 5)
    rows(folder / "heldout_sft.jsonl", 5)
    check = machine.check_data(worker)
    assert check.status == "ok"
    assert "2 clients, 17 sft rows" in check.text
    assert "client_0 12 sft; client_3 5 sft" in check.text


def test_a_worker_without_rows_yet_is_warned(situation: CheckContext) -> None:
    check = machine.check_data(replace(situation, side="worker"))
    assert check.status == "warn" and "--data" in check.remedy


def with_model(situation: CheckContext, name: str) -> CheckContext:
    config: FederationConfig = situation.config
    changed = config.model_copy(update={"model": config.model.model_copy(update={"name": name})})
    return replace(situation, config=changed)


def test_a_model_that_is_here_is_named_by_its_digest_and_none_is_made(
    situation: CheckContext, model_cache: Path, tmp_path: Path
) -> None:
    there = replace(with_model(situation, "offline:gpt2-micro"), cache=model_cache)
    assert "digest" in machine.check_model(there).text
    check = machine.check_model(with_model(situation, "offline:gpt2-micro"))
    assert check.status == "ok" and "not there yet" in check.text
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("name", ["offline:nothing", "./nowhere"])
def test_a_model_that_is_not_available_fails(situation: CheckContext, name: str) -> None:
    with pytest.raises(ModelError):
        machine.check_model(with_model(situation, name))


def test_the_disk_of_the_run_directory_is_checked(situation: CheckContext, tmp_path: Path) -> None:
    check = machine.check_disk(situation)
    assert "runs" in check.text and " free" in check.text
    assert not (tmp_path / "runs").exists()


def test_the_processors_are_reported(situation: CheckContext) -> None:
    check = machine.check_compute(situation)
    assert check.status == "ok" and "cores" in check.text and "bfloat16" in check.text
