"""`fccl export`, behind the command: one version of a run becomes a directory for others.

Written beside its place and renamed into it: an export is whole, or it is not there.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

from common.errors import ConfigError
from common.software import software_version
from evaluation.export import card
from evaluation.run_record import Recorded
from learning.models import export
from learning.models.export import ExportedModel, ExportSummary, Precision
from learning.progress import ProgressCallback
from preparation import run as preparation

_REPORTS = ("evaluation.json", "report/evaluation.json", "report/report.json")
_MAX_REPORT = 16 << 20  # bytes; no report of ours comes near
_LIBRARIES = ("torch", "transformers", "peft")


@dataclass(frozen=True)
class ExportOptions:
    """What to export.

    Attributes:
        version: That is on the disk.
        merge: Merge the adapter into its base.
        precision: Of a whole model's weights; None for float32.
        with_base: Put the base beside an adapter; None where others could not get it.
    """

    version: int
    merge: bool
    precision: Precision | None
    with_base: bool | None


def export_version(
    run: Recorded, wanted: ExportOptions, out: Path, cache: Path, report: ProgressCallback
) -> ExportSummary:
    """Write an export with its card.

    Args:
        run: Read from its directory.
        wanted: What to export.
        out: Is not there, or an empty directory.
        cache: Folder of base models.
        report: Told of progress where the base has to be fetched or made.

    Raises:
        ConfigError: `out` cannot be written, or the wish cannot be met.
        RunError: The version is damaged.
        ModelError: The base model is gone, or is not what the run began with.
    """
    trained = ExportedModel(
        objective=run.config.phase[0].objective,
        base=run.base,
        path=preparation.find_base_model(run.config, cache, report)(run.base),
        labels=run.labels,
        lora=run.config.model.lora,
        config=run.adapter_config,
        tensors=run.tensors(wanted.version),
    )
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".part-", dir=out.parent))
        try:
            written = _model(trained, wanted, temporary)
            text = card.markdown(_facts(run, wanted.version, written))
            (temporary / "README.md").write_text(text, encoding="utf-8")
            _readable(temporary)
            temporary.rename(out)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise ConfigError(
            f"{out} cannot be written: {error.strerror or error}", "choose another place"
        ) from None
    return written


def _model(trained: ExportedModel, wanted: ExportOptions, out: Path) -> ExportSummary:
    if wanted.merge or trained.lora is None:
        return export.write_model(trained, out, wanted.precision or "float32")
    return export.write_adapter(trained, out, wanted.with_base)


def _readable(folder: Path) -> None:
    """Let others read it: mkdtemp and safetensors make what only its owner may."""
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


def _facts(run: Recorded, version: int, written: ExportSummary) -> card.CardData:
    made_by = (software_version(), *(f"{name} {installed(name)}" for name in _LIBRARIES))
    return card.CardData(run, version, written, find_evaluation(run, version), made_by)


def find_evaluation(run: Recorded, version: int) -> Mapping[str, Any]:
    """The evaluation of a version that lies in the run directory; empty where there is none."""
    for name in _REPORTS:
        found = _read(run.directory / name)
        if _version_of(found) == version:
            return found
    return {}


def _version_of(found: Mapping[str, Any]) -> int | None:
    """The version that a report is about: stated, or the last of those that it lists."""
    if isinstance(stated := found.get("version"), int):
        return stated
    listed = found.get("versions")
    last = listed[-1] if isinstance(listed, list) and listed else None
    number = last.get("version") if isinstance(last, dict) else None
    return number if isinstance(number, int) else None


def _read(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _MAX_REPORT:
            return {}
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
