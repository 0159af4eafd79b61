"""What a site evaluates follows from its settings."""

from __future__ import annotations

import pytest

from common.errors import ConfigError, ModelError
from tests.support.worker_records import eval_task
from worker.settings.settings import SiteSettings
from worker.settings.suitability import EvaluationDeclined, check_evaluation

ALONE = eval_task()
SCORED = eval_task(candidate={"sha256": "0" * 64, "nbytes": 1})


def test_a_site_evaluates_versions_unless_it_declines_and_says_where() -> None:
    check_evaluation(SiteSettings(), ALONE, shares=False)
    declining = SiteSettings(evaluation=False, share_updates=True)
    for task in (ALONE, SCORED):
        with pytest.raises(EvaluationDeclined) as caught:
            check_evaluation(declining, task, shares=True)
        assert str(caught.value) == (
            "this site does not evaluate: evaluation = false in its worker.toml"
        )


def test_the_updates_of_others_are_evaluated_only_where_updates_are_shared() -> None:
    check_evaluation(SiteSettings(share_updates=True), SCORED, shares=False)
    check_evaluation(SiteSettings(), SCORED, shares=True)  # dealt clients
    with pytest.raises(ConfigError, match="share_updates = false") as caught:
        check_evaluation(SiteSettings(), SCORED, shares=False)
    assert not isinstance(caught.value, EvaluationDeclined)  # it evaluates versions


def test_a_base_model_that_the_site_does_not_accept_is_not_evaluated() -> None:
    with pytest.raises(ModelError, match="does not train the base model"):
        check_evaluation(SiteSettings(accept=("org/*",)), ALONE, shares=False)
