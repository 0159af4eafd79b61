"""Checks of a run and its tasks against the settings of a site, before anything is fetched."""

from __future__ import annotations

from common.errors import ConfigError
from common.protocol.evaluations import EvalTask
from common.protocol.tasks import TrainTask
from common.protocol.versions import CurrentModel
from worker.settings.accepted_models import check_accepted
from worker.settings.settings import SiteSettings


class EvaluationDeclined(ConfigError):
    """The site evaluates no version, by its own settings."""


def check_run(settings: SiteSettings, model: CurrentModel) -> None:
    """Check what is known about a run before its first task.

    Raises:
        ConfigError: The micro-batch is above a batch of the plan.
        ModelError: The site does not accept the base model.
    """
    check_accepted(settings.accept, model.base)
    if model.min_batch_size is not None:
        _check_micro_batch(settings, model.min_batch_size, "the run's plan")


def check_task(settings: SiteSettings, task: TrainTask) -> None:
    """Check whether a task may be trained here.

    Raises:
        ConfigError: The micro-batch is above the batch, or the task needs a loss that the site does
            not measure.
        ModelError: The site does not accept the base model.
    """
    check_accepted(settings.accept, task.base)
    _check_micro_batch(settings, task.training.batch_size, f"task {task.task_id}")
    if not settings.evaluation and task.holdout_budget is None:
        raise ConfigError(
            f"task {task.task_id} needs the loss on the holdout, which this site does not report",
            "set evaluation = true in worker.toml, or aggregation.contribution_source in the run",
        )


def check_evaluation(settings: SiteSettings, task: EvalTask, *, shares: bool) -> None:
    """Check whether a version, or an update of another client, may be evaluated here.

    Args:
        shares: Whether updates may be evaluated whatever the settings say.

    Raises:
        EvaluationDeclined: The site evaluates nothing.
        ConfigError: The site does not evaluate the updates of others.
        ModelError: The site does not accept the base model.
    """
    if not settings.evaluation:
        raise EvaluationDeclined(
            "this site does not evaluate: evaluation = false in its worker.toml"
        )
    if task.candidate is not None and not (shares or settings.share_updates):
        raise ConfigError(
            "this site does not evaluate the updates of others: share_updates = false in its"
            " worker.toml"
        )
    check_accepted(settings.accept, task.base)


def _check_micro_batch(settings: SiteSettings, batch_size: int, where: str) -> None:
    size = settings.micro_batch
    if size != "auto" and size > batch_size:
        raise ConfigError(
            f"micro_batch {size} is above the batch size {batch_size} of {where}",
            f'set it to at most {batch_size}, or to "auto", in worker.toml',
        )
