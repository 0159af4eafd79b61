"""A plug-in objective of another package changes how a task is trained."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from cli.run.plugin_tasks import check_plugins
from common.config.effect import check_effect
from common.config.loader import parse
from common.errors import ConfigError, WireError
from common.protocol.run_plan import RunPlan
from common.protocol.tasks import ObjectivePlugin, TrainTask
from common.protocol.wire import pack, unpack
from learning.objectives.plugins import extend_objective
from learning.objectives.registry import make_objective
from learning.objectives.tokens import make_example
from learning.training import batches
from tests.support.plugins import install_documented_plugins
from tests.support.run_plans import run_plan
from tests.support.tiny_model import tiny_model
from tests.support.worker_records import task


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_documented_plugins(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)


def focal(gamma: float) -> ObjectivePlugin:
    return ObjectivePlugin(name="focal", options={"gamma": gamma})


def test_the_documented_objective_learns_less_from_probable_tokens(installed: None) -> None:
    sft, model = make_objective("sft"), tiny_model()
    batch = batches.collate([make_example([5, 6], [7, 8, 9], 3)], torch.device("cpu"))
    plain, figures = sft.loss(model, batch)
    without, _ = extend_objective(sft, focal(0.0)).loss(model, batch)
    strong, same = extend_objective(sft, focal(5.0)).loss(model, batch)
    assert without.item() == pytest.approx(plain.item())
    assert strong.item() < plain.item()
    assert same == pytest.approx(figures)


def test_a_plug_in_may_refuse_the_objective_of_its_phase(installed: None) -> None:
    with pytest.raises(ConfigError, match=r"objectives\.focal.*for sft"):
        extend_objective(make_objective("dpo"), focal(1.0))


def test_a_plug_in_that_is_not_installed_and_a_wrong_option_are_named(installed: None) -> None:
    with pytest.raises(ConfigError, match=r"no such plug-in is installed \(installed: focal"):
        extend_objective(make_objective("sft"), ObjectivePlugin(name="other"))
    with pytest.raises(ConfigError, match=r"objectives\.focal\.gamma"):
        check_plugins({}, {}, {"focal": {"gamma": "many"}})


def test_options_without_a_phase_that_uses_them_are_refused() -> None:
    table = {"objectives": {"focal": {"gamma": 1.0}}}
    with pytest.raises(ConfigError, match="no phase has that plug-in"):
        check_effect(parse(table, "test"))
    check_effect(parse(table | {"phase": [{"plugin": "focal"}]}, "test"))


def test_name_and_options_travel_in_tasks_and_only_where_there_are_any() -> None:
    sent = task().model_copy(update={"plugin": focal(1.5)})
    assert unpack(TrainTask, pack(sent))[0] == sent
    assert b"plugin" not in pack(task())  # workers of earlier releases would refuse it


def test_a_plan_without_plug_ins_is_that_of_earlier_releases() -> None:
    plan = run_plan()
    assert "plugin" not in plan.fields()["phases"][0]
    phase = plan.phases[0].model_copy(update={"plugin": focal(1.5)})
    changed = plan.model_copy(update={"phases": (phase,)})
    assert changed.digest != plan.digest
    assert unpack(RunPlan, pack(changed))[0] == changed


@pytest.mark.parametrize("options", [{"a b": 1}, {"x": [1]}, {"x": float("nan")}, {"x": "y" * 201}])
def test_options_of_other_kinds_are_refused_on_the_wire(options: dict[str, object]) -> None:
    sent = pack(
        task().model_copy(
            update={"plugin": ObjectivePlugin.model_construct(name="focal", options=options)}
        )
    )
    with pytest.raises(WireError):
        unpack(TrainTask, sent)
