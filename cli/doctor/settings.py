"""Check of a site's settings, `worker.toml`, by themselves and against the run."""

from __future__ import annotations

import time

from cli.doctor.checks import CheckContext, CheckResult
from common.clock import format_time
from common.errors import FcclError, StoreError
from common.protocol.versions import CurrentModel
from common.store.store import connect
from worker.settings import hours, loader
from worker.settings.suitability import check_run


def check_settings(context: CheckContext) -> CheckResult:
    """Check the file and its overrides, whether the site works now, and whether they fit the run.

    Raises:
        ConfigError: A key or a value is wrong.
    """
    assert context.settings is not None  # a check of workers only
    own = loader.load(context.settings)
    text = own.describe().removeprefix("settings of ")
    if not context.settings.exists():
        text += " (the file is written by the first start of a worker)"
    try:
        if (model := _current_model(context)) is not None:
            check_run(own.settings, model)
    except FcclError as error:
        return CheckResult("settings", "fail", f"{text}: {error.what}", error.remedy)
    now = time.time()
    if not hours.is_open(own.settings.windows, now):
        opens = format_time(hours.next_opening(own.settings.windows, now))
        return CheckResult("settings", "ok", f"{text}; rests until {opens}")
    return CheckResult("settings", "ok", text)


def _current_model(context: CheckContext) -> CurrentModel | None:
    """Return what the store knows of the run; None if it knows nothing or is out of reach."""
    config = context.config
    try:
        store = connect(config.store.url, ca=config.store.ca)
        run = store.get_run(config.run.name)
        return store.get_model(run) if run else None
    except StoreError:
        return None  # the check of the store says why
