"""Tasks of the child processes that plug-ins run in (`cli/run/child_main.py`)."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from common.config.config import EvaluatorConfig
from common.errors import FcclError
from common.plugins.entry_points import EVALUATORS, OBJECTIVES, TRACKERS
from common.plugins.secrets import without_secrets
from common.protocol.evaluations import EvaluatorFigures
from common.run_directory.recorded_run import read_run

NextCommand = Callable[[], dict[str, Any] | None]


def check_plugins(
    trackers: Mapping[str, Mapping[str, Any]],
    evaluators: Mapping[str, Any],
    objectives: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
) -> None:
    """Raise `ConfigError` for a plug-in that is not installed or an option that it refuses."""
    with _quiet():
        for name, options in trackers.items():
            TRACKERS.create(name, options)
        for name, table in evaluators.items():
            EVALUATORS.create(name, EvaluatorConfig.model_validate(table).options)
        for name, options in objectives.items():
            OBJECTIVES.create(name, options)


def track(
    directory: Path, name: str, options: Mapping[str, Any], next_command: NextCommand
) -> None:
    """Let a tracker follow a run until a command ends it; raise `FcclError` if it fails."""
    from evaluation.trackers.follower import Follower

    with _quiet(), _explained():
        tracker = TRACKERS.create(name, options)
        Follower(directory, name, tracker).follow(next_command)


def evaluate(
    directory: Path,
    base_path: Path,
    tables: Mapping[str, Any],
    next_command: NextCommand,
    on_figures: Callable[[EvaluatorFigures], None],
    on_failure: Callable[[str], None],
) -> None:
    """Let evaluators evaluate the versions of a run until a command ends them."""
    from evaluation.evaluators.runner import EvaluatorRunner, ScheduledEvaluator

    with _quiet(), _explained():
        scheduled = []
        for name, table in tables.items():
            config = EvaluatorConfig.model_validate(table)
            evaluator = EVALUATORS.create(name, config.options)
            scheduled.append(ScheduledEvaluator(name, evaluator, config.every, config.deadline_s))
        EvaluatorRunner(
            read_run(directory),
            base_path,
            tuple(scheduled),
            on_figures,
            lambda text: on_failure(without_secrets(text)),
        ).run(next_command)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Discard what libraries print: banners, progress bars, and perhaps logins."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """Raise errors of plug-ins as `FcclError`, without secrets."""
    try:
        yield
    except FcclError:
        raise
    except Exception as error:
        raise FcclError(without_secrets(f"{type(error).__name__}: {error}")) from None
