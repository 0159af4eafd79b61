"""Part of `fccl export` at an invited site: a copy of the version that a run delivered to it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from cli.console import Output
from cli.options import find_config
from cli.run.join_site import site_request
from common.config import loader
from common.disk_errors import describe
from common.errors import ConfigError, ModelError, RunError
from common.files import apply_umask
from worker.delivery.delivered import BEST, FINAL, newest_delivered

BASE = "base"


def refuse_with_site(options: Mapping[str, object]) -> None:
    """Raise `ConfigError` for options that choose among the versions of a run directory."""
    for name, value in options.items():
        if value:
            raise ConfigError(
                f"{name} is for a run directory, which is the coordinator's",
                "a site has the last version, and the best one with --best",
            )


def export_delivered(
    site: str,
    state: Path | None,
    out: Path,
    *,
    best: bool,
    with_base: bool | None,
    output: Output,
) -> None:
    """Copy the version that the newest run delivered to a site.

    Args:
        state: State directory of the site's worker; None for that of `fccl worker --join`.
        with_base: Whether to copy the base model, which is a link there; None if there is one.

    Raises:
        JoinError: This machine has not joined as that site.
        RunError: Nothing has been delivered yet, or no best version.
        ModelError: The base model is gone.
        ConfigError: `out` cannot be written.
    """
    name = loader.load(find_config(None)).run.name
    directory = state or site_request(None, site, name).directory / "work"
    found = newest_delivered(directory)
    if found is None:
        raise RunError(
            f"nothing has been delivered to site {site} yet",
            f"start `fccl worker --site {site}` when the run is over",
        )
    folder, delivered = found
    if best and delivered.best is None:
        raise RunError(
            f"run {delivered.run} names no best version: the sites evaluated none",
            "leave out --best for the last version",
        )
    version = delivered.best if best else delivered.final
    _copy(folder / (BEST if best else FINAL), out, with_base)
    output.print(f"version {version} of run {delivered.run} is in {out}")
    output.print(f"how to use it: {out / 'README.md'}")


def _copy(source: Path, out: Path, with_base: bool | None) -> None:
    base = source / BASE
    if with_base is not False and (with_base or base.is_symlink()) and not base.exists():
        raise ModelError(
            f"the base model is not in {base}", "--without-base exports the adapter alone"
        )
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".part-", dir=out.parent))
        try:
            ignored = shutil.ignore_patterns(BASE) if with_base is False else None
            shutil.copytree(source, temporary, ignore=ignored, dirs_exist_ok=True)
            apply_umask(temporary)
            temporary.rename(out)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except (OSError, shutil.Error) as error:
        reason = describe(error)
        raise ConfigError(f"{out} cannot be written: {reason}", "choose another place") from None
