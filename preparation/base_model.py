"""Choice of a run's base model when the run begins, and search for it when it is resumed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from common.config.config import FederationConfig
from common.config.loader import apply_offline
from common.errors import ModelError
from common.model_cache import find_installed
from common.protocol.manifest import MAX_SENT, is_model_file
from common.protocol.tasks import BaseRef
from learning.models import base, hub, objective_model
from learning.models.base import BaseModel
from learning.progress import ProgressCallback

MessageCallback = Callable[[str], None]  # called with a line for the user


def apply_offline_fallback(
    config: FederationConfig,
    on_message: MessageCallback,
    is_available: Callable[[str, str | None], bool] | None = None,
) -> FederationConfig:
    """Return the configuration of a new run, with [offline] applied if its hub cannot be reached.

    Args:
        is_available: Returns whether the hub has a model; by default `hub.is_available`.
    """
    if not config.offline or not _needs_hub(config):
        return config
    if (is_available or hub.is_available)(config.model.name, config.model.revision):
        return config
    changes = ", ".join(f"{key} = {value}" for key, value in config.offline.items())
    on_message(f"the model hub cannot be reached; using {changes} from [offline]")
    return apply_offline(config)


def _needs_hub(config: FederationConfig) -> bool:
    """Return whether `learning.models.base.resolve` would look for the base model on the hub."""
    name = config.model.name
    return hub.is_hub_id(name) and not Path(name).expanduser().is_dir()


def resolve_base_model(
    config: FederationConfig, cache: Path, on_progress: ProgressCallback
) -> BaseModel:
    """Find, fetch or make the configured base model; raise `ModelError` if it cannot be used."""
    family = objective_model.family_for_objective(config.phase[0].objective)
    return base.resolve(config.model.name, config.model.revision, cache, on_progress, family)


def announce_size(model: BaseModel, on_message: MessageCallback) -> None:
    """Tell the user, before any worker starts, that a model is too large to be sent to workers."""
    files = (file for file in model.path.iterdir() if is_model_file(file.name))
    size = sum(file.stat().st_size for file in files)
    if size <= MAX_SENT:
        return
    source = "download it from the hub, or " if model.kind == "hub" else ""
    on_message(
        f"the base model has {size / 2**30:.1f} GiB, and models over {MAX_SENT / 2**30:.0f} GiB are"
        f" not sent through Redis: workers on other machines {source}need a copy of it and"
        " `fccl worker --base DIR`"
    )


def find_base_model(ref: BaseRef, cache: Path, on_progress: ProgressCallback) -> Path:
    """Return the directory of an existing run's base model; fetch or make it if necessary.

    Raises:
        ModelError: The model is gone, or its content is not that with which the run began.
    """
    if (path := find_installed(ref.digest, cache)) is not None:
        return path
    if ref.name.startswith("analytic:"):  # of `fccl simulate`
        raise ModelError(
            f"{ref.name} is an objective, not a model", "its figures are in simulation.jsonl"
        )
    model = base.resolve(ref.name, ref.revision, cache, on_progress)
    if model.digest != ref.digest:
        raise ModelError(
            f"model {ref.name} has digest {model.digest[:12]},"
            f" but the run began with {ref.digest[:12]}",
            "restore the model, or start over with --new",
        )
    return model.path
