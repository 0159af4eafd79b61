"""Export of one version of a run as a directory to share, for `fccl export`.

The directory is written under a temporary name and renamed: an export is complete or absent.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from importlib.metadata import version as installed_version
from pathlib import Path

from safetensors import SafetensorError

from common.disk_errors import describe
from common.errors import ConfigError
from common.files import apply_umask
from common.run_directory.recorded_run import RecordedRun
from common.software import software_version
from evaluation.export import card
from evaluation.export.card_data import CardData
from evaluation.export.card_evaluation import find_evaluation
from learning.models import export
from learning.models.export import ExportedModel, ExportSummary, Precision

_LIBRARIES = ("torch", "transformers", "peft")


@dataclass(frozen=True)
class ExportOptions:
    """The version to export, and the form of the export."""

    version: int
    merge: bool  # the adapter into its base
    precision: Precision | None  # of a whole model's weights; None for float32
    with_base: bool | None  # put the base beside an adapter; None: only if it is on no hub


def export_version(
    run: RecordedRun, base_path: Path, options: ExportOptions, out: Path
) -> ExportSummary:
    """Write an export with its model card.

    Args:
        out: An empty directory, or a path that does not exist.

    Raises:
        ConfigError: `out` cannot be written, or the options cannot be met.
        RunError: The version is damaged.
        ModelError: The base model cannot be loaded.
    """
    model = _exported_model(run, base_path, options.version)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".part-", dir=out.parent))
        try:
            written = _write_model(model, options, temporary)
            text = card.to_markdown(_card_data(run, options.version, written))
            (temporary / "README.md").write_text(text, encoding="utf-8")
            apply_umask(temporary)
            temporary.rename(out)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        raise ConfigError(
            f"{out} cannot be written: {describe(error)}", "choose another place"
        ) from None
    return written


def write_card(run: RecordedRun, base_path: Path, version: int) -> str:
    """Return the model card of a version as it is exported by default, without the export.

    Raises:
        RunError: The version is damaged.
        ModelError: The base model cannot be loaded.
    """
    written = export.describe_export(_exported_model(run, base_path, version))
    return card.to_markdown(_card_data(run, version, written))


def _exported_model(run: RecordedRun, base_path: Path, version: int) -> ExportedModel:
    return ExportedModel(
        objective=run.config.phase[0].objective,
        base=run.base,
        path=base_path,
        labels=run.labels,
        lora=run.config.model.lora,
        config=run.adapter_config,
        tensors=run.tensors(version),
        run=run.run_id,
        version=version,
        prompt=run.prompt,
    )


def _write_model(model: ExportedModel, options: ExportOptions, out: Path) -> ExportSummary:
    if options.merge or model.lora is None:
        return export.write_model(model, out, options.precision or "float32")
    return export.write_adapter(model, out, options.with_base)


def _card_data(run: RecordedRun, version: int, written: ExportSummary) -> CardData:
    libraries = (f"{name} {installed_version(name)}" for name in _LIBRARIES)
    evaluation = find_evaluation(run, version)
    return CardData(run, version, written, evaluation, (software_version(), *libraries))
