"""Federations on a base in bfloat16 or quantized: training, report and export."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.integration.test_families import PLAN, environment
from tests.support.families import saved_family
from tests.support.processes import commands

DPO = """\
[[phase]]
objective = "dpo"
versions = 1
local_steps = 1
batch_size = 4
lr = 1e-3
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("setting", "reported"), [('dtype = "bfloat16"', None), ('quantization = "nf4"', "nf4")]
)
def test_a_federation_trains_reports_and_exports(
    tmp_path: Path, setting: str, reported: str | None
) -> None:
    saved_family("llama", tmp_path / "model")
    plan = PLAN.replace('name = "model"', f'name = "model"\n{setting}') + DPO
    (tmp_path / "f.toml").write_text(plan)
    with commands(tmp_path, environment(tmp_path)) as place:
        for words in (
            ("demo", "--plain", "--config", "f.toml", "--out", "run"),
            ("export", "--plain", "run", "adapter"),
            ("export", "--plain", "run", "merged", "--merge"),
        ):
            command = place.fork(*words)
            assert command.end() == 0, f"{command.out}\n{command.err}"
    fields = json.loads((tmp_path / "run" / "report" / "report.json").read_text())
    before, after = fields["base"], fields["federated"]
    assert after["nats_per_token"] < before["nats_per_token"]
    if reported is None:
        assert "quantization" not in fields
    else:
        gap = fields["quantization"]
        assert (gap["name"], gap["metric"]) == (reported, "nats_per_token")
        assert gap["quantized"] == pytest.approx(gap["unquantized"], rel=0.05)
    card = (tmp_path / "adapter" / "README.md").read_text()
    assert ("quantized to nf4" if reported else "held in bfloat16") in card
