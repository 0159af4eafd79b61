"""Models from the Hugging Face hub: weights as safetensors, configuration, tokenizer; no code.

A branch moves, so the commit it points to is resolved first and everything is downloaded at that
commit. A hub that cannot be reached is normal on many machines: it is reported within seconds, with
a remedy, and a model that was downloaded before is used without the network.

In the data path: called by `learning.models.base` for a name that is neither `offline:` nor a
directory.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

import huggingface_hub
from huggingface_hub.errors import (
    GatedRepoError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils.tqdm import disable_progress_bars

from common.errors import ModelError
from common.protocol.manifest import is_model_file
from common.urls import check_proxies
from learning.progress import ProgressCallback

TIMEOUT = 5.0
"""Seconds without an answer after which the hub counts as unreachable."""

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?")


@dataclass(frozen=True)
class ModelSnapshot:
    """A downloaded model: the commit at which it was taken, and its directory."""

    revision: str
    path: Path


def is_hub_id(name: str) -> bool:
    """Return whether a name has the form of a hub id: `model` or `owner/model`."""
    return _HUB_ID.fullmatch(name) is not None and ".." not in name and "--" not in name


def is_available(name: str, revision: str | None) -> bool:
    """Return whether the hub answers, or the model was downloaded before.

    An answer that there is no such model, or that it is gated, counts: `download` reports it.
    """
    check_proxies(os.environ)
    try:
        huggingface_hub.model_info(name, revision=revision, timeout=TIMEOUT)
    except (GatedRepoError, RevisionNotFoundError, RepositoryNotFoundError):
        return True
    except Exception:  # see `download`
        return cached_snapshot(name, revision) is not None
    return True


def download(name: str, revision: str | None, on_progress: ProgressCallback) -> ModelSnapshot:
    """Download a model at one commit, or find it where it was downloaded before.

    Raises:
        ModelError: The hub cannot be reached, has no such model or revision, or gates it.
    """
    check_proxies(os.environ)
    disable_progress_bars()
    on_progress(f"looking up {name} on the hub", 0.0)
    # The hub's client lets the errors of its HTTP library through, and that library has changed
    # between releases: there is no common base to catch.
    try:
        return _download(name, revision, on_progress)
    except ModelError:
        raise
    except Exception as error:
        if (snapshot := cached_snapshot(name, revision)) is not None:
            return snapshot
        raise _model_error(name, revision, error) from None


def _download(name: str, revision: str | None, on_progress: ProgressCallback) -> ModelSnapshot:
    info = huggingface_hub.model_info(name, revision=revision, timeout=TIMEOUT)
    # Names, not patterns: `*.safetensors` would also match weights in sub-folders.
    names = sorted(s.rfilename for s in info.siblings or [] if is_model_file(s.rfilename))
    if not names or info.sha is None:
        raise ModelError(f"hub model {name} has no model files", "check model.name")
    on_progress(f"downloading {name}", 0.1)
    path = huggingface_hub.snapshot_download(
        name, revision=info.sha, allow_patterns=names, etag_timeout=TIMEOUT
    )
    on_progress(f"downloaded {name}", 1.0)
    return ModelSnapshot(info.sha, Path(path))


def resolve_commit(name: str, revision: str | None) -> str:
    """Return the commit that a download would take now.

    Raises:
        ModelError: The hub cannot be reached, has no such model or revision, or gates it.
    """
    check_proxies(os.environ)
    try:
        info = huggingface_hub.model_info(name, revision=revision, timeout=TIMEOUT)
    except Exception as error:  # see `download`
        raise _model_error(name, revision, error) from None
    return str(info.sha)


def cached_snapshot(name: str, revision: str | None) -> ModelSnapshot | None:
    """Return a model that was downloaded before, found without the network, or None."""
    try:
        path = huggingface_hub.snapshot_download(name, revision=revision, local_files_only=True)
    except Exception:  # whatever the reason: it is not cached, and the first error is reported
        return None
    return ModelSnapshot(Path(path).name, Path(path))


def _model_error(name: str, revision: str | None, error: Exception) -> ModelError:
    if isinstance(error, GatedRepoError):
        return ModelError(
            f"hub model {name} is gated", "accept its terms on the hub and run `hf auth login`"
        )
    if isinstance(error, RevisionNotFoundError):
        return ModelError(f"hub model {name} has no revision {revision}", "check model.revision")
    if isinstance(error, RepositoryNotFoundError):
        return ModelError(f"the hub has no model {name} (or it is private)", "check model.name")
    return ModelError(
        f"model {name}: the hub cannot be reached ({type(error).__name__})",
        "use offline:gpt2-tiny, or the path of a model directory",
    )
