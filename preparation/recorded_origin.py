"""Origin of an adapter that is a version in a run directory, not an export."""

from __future__ import annotations

from dataclasses import replace

from common.errors import ConfigError, RunError
from common.run_directory.recorded_run import read_run
from common.run_directory.records import AdapterOrigin
from learning.models.exported_adapter import ExportedAdapter, prompt_digest


def with_recorded_origin(adapter: ExportedAdapter) -> ExportedAdapter:
    """Return the adapter with its origin, read from the run's journal for `RUN/versions/000002`."""
    folder = adapter.path.absolute()
    if adapter.origin is not None or folder.parent.name != "versions" or not folder.name.isdigit():
        return adapter
    try:
        run = read_run(folder.parent.parent)
    except (RunError, ConfigError):
        return adapter  # a directory that only looks like a version's, or a run of another release
    origin = AdapterOrigin(
        bases=(run.base.digest,),
        run=run.run_id,
        version=int(folder.name),
        labels=run.labels,
        prompt=prompt_digest(run.prompt),
    )
    return replace(adapter, origin=origin)
