"""Offline base models: a small GPT-2 and a small BERT, trained on the English of this machine.

A federation must run where no hub is reachable, and its figures must mean something there. So a
model is built once: text from `learning.offline.corpus`, a tokenizer learned from it, and a fixed
number of training steps from a fixed seed. A pretrained model that a Python package carries is
converted once. Built models are cached under a name derived from their configuration; a build that
is killed leaves nothing behind, and a second build that starts meanwhile waits.

In the data path: `learning.models.base` calls `find_or_build` for a name that begins with
`offline:`. `learning.offline.causal_pretraining` trains the GPT-2,
`learning.offline.encoder_pretraining` the BERT, and `learning.offline.gguf_conversion` converts.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import astuple, dataclass
from functools import partial
from pathlib import Path

from filelock import FileLock

from common.errors import ModelError
from learning.offline import causal_pretraining, encoder_pretraining, gguf_conversion, packaged
from learning.offline.packaged import PACKAGED
from learning.offline.training_texts import CorpusSizes, training_texts
from learning.progress import ProgressCallback

PREFIX = "offline:"
DEFAULT_CAUSAL = "offline:gpt2-tiny"

CAUSAL = {
    "gpt2-tiny": causal_pretraining.CausalPretrainingConfig(),
    # For tests: built in a few seconds, real in every part, and good for nothing else.
    "gpt2-micro": causal_pretraining.CausalPretrainingConfig(
        vocab_size=512, positions=512, layers=1, width=64, heads=2, fit_steps=10, steps=10, batch=8,
        length=64, sizes=CorpusSizes(passages=400, prose=100, world=100, primer=1), packages=(),
    ),
}  # fmt: skip
ENCODERS = {
    "bert-tiny": encoder_pretraining.EncoderPretrainingConfig(),
    # For tests, likewise.
    "bert-micro": encoder_pretraining.EncoderPretrainingConfig(
        vocab_size=1024, positions=512, layers=2, width=64, heads=2, position_dims=16, steps=10,
        batch=8, length=64, opinions=300,
        sizes=CorpusSizes(passages=400, prose=100, world=100, primer=1, tasks=0.0), packages=(),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class BuildPlan:
    """How an offline model is built, and the inputs that identify it."""

    pretrain: Callable[[Path, ProgressCallback], None]  # or converts a pretrained model
    inputs: tuple[object, ...]  # configuration and the project's own texts, or a file's digest


def find_plan(name: str) -> BuildPlan | None:
    """Return the plan of a model by its name without the prefix, or None if there is none.

    The texts of other packages are left out of the inputs on purpose: an upgrade of a package must
    not make a new base model.

    Raises:
        ModelError: The package that carries the model is not installed.
    """
    if causal := CAUSAL.get(name):
        texts = training_texts([], causal.sizes, causal.seed)
        pretrain = partial(causal_pretraining.pretrain, causal)
        return BuildPlan(pretrain, (astuple(causal), texts))
    if encoder := ENCODERS.get(name):
        texts = encoder_pretraining.encoder_texts(encoder, [])
        pretrain_encoder = partial(encoder_pretraining.pretrain, encoder)
        return BuildPlan(pretrain_encoder, (astuple(encoder), texts))
    if model := PACKAGED.get(name):
        file = model.file()
        convert = partial(gguf_conversion.convert, file, f"converting {model.title}, once")
        return BuildPlan(convert, (packaged.CONVERTER, packaged.file_digest(file)))
    return None


def folder_name(name: str, inputs: tuple[object, ...]) -> str:
    """Return the cache folder's name: with other inputs it is another model."""
    return f"{name}-{hashlib.sha256(repr(inputs).encode()).hexdigest()[:12]}"


def find_built(name: str, cache: Path) -> Path | None:
    """Return the directory of an offline model that was built before, or None.

    Raises:
        ModelError: There is no offline model of this name, or its package is not installed.
    """
    target, _ = _locate(name, cache)
    return target if target.is_dir() else None


def find_or_build(name: str, cache: Path, on_progress: ProgressCallback) -> Path:
    """Return the directory of an offline model; build the model first if it is not cached.

    Args:
        name: `offline:gpt2-tiny`, `offline:bert-tiny` or `offline:smollm2-135m`; for tests
            `offline:gpt2-micro` or `offline:bert-micro`.
        cache: Folder whose `models/` holds the built models.
        on_progress: Not called when the model is cached.

    Raises:
        ModelError: There is no offline model of this name, its package is not installed, or the
            cache cannot be written.
    """
    target, plan = _locate(name, cache)
    if target.is_dir():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.with_suffix(".lock")):
            if not target.is_dir():  # another process may have built it while this one waited
                _build(plan, target, on_progress)
    except OSError as error:
        raise ModelError(
            f"model cache {cache} cannot be written: {error.strerror or error}",
            "free space there, or choose another cache folder",
        ) from None
    return target


def _locate(name: str, cache: Path) -> tuple[Path, BuildPlan]:
    short = name.removeprefix(PREFIX)
    plan = find_plan(short)
    if plan is None:
        known = ", ".join(PREFIX + each for each in (*CAUSAL, *ENCODERS, *PACKAGED))
        raise ModelError(f"there is no offline model {name!r}", f"choose one of {known}")
    return cache / "models" / folder_name(short, plan.inputs), plan


def _build(plan: BuildPlan, target: Path, on_progress: ProgressCallback) -> None:
    """Build into a temporary directory beside `target`, then rename it into place."""
    temporary = Path(tempfile.mkdtemp(prefix=".part-", dir=target.parent))
    try:
        plan.pretrain(temporary, on_progress)
        temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
