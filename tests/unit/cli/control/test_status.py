"""`fccl status` of a run that no process serves any more."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

from cli.control.status import command
from tests.support.simulations import analytic_config, simulated


def test_a_recorded_run_is_shown_at_its_end_without_a_server(tmp_path: Path) -> None:
    simulated(analytic_config(tmp_path))
    done = CliRunner().invoke(command, ["--run", str(tmp_path / "run"), "--json"])
    info = json.loads(done.stdout)["info"]
    assert (info["status"], info["version"], info["clients"]) == ("finished", 4, 6)
    shown = CliRunner().invoke(command, ["--run", str(tmp_path / "run")]).stdout
    assert "finished" in shown and "client_5" in shown
