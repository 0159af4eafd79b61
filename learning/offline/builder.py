"""Offline base models: a small GPT-2 and a small BERT, made from the English of this machine.

A federation must be able to run where no hub is reachable, and its figures must mean something
there. So a model is made once: text from `learning/offline/corpus`, a tokenizer learned from it,
and a fixed number of training steps from a fixed seed. Built models lie in the cache under their
recipe's name; a build that is killed leaves nothing behind, and of two builds that start at once
one waits.

In the data path: `learning/base` calls `find_or_build` for a name that begins with `offline:`. Training
itself is `learning/offline/pretraining` for the GPT-2 and `learning/offline/masked` for the BERT.
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
from learning.offline import causal_pretraining, encoder_pretraining
from learning.offline.training_texts import CorpusSizes, training_texts

PREFIX = "offline:"
DEFAULT_CAUSAL = "offline:gpt2-tiny"
DEFAULT_ENCODER = "offline:bert-tiny"

CAUSAL = {
    "gpt2-tiny": causal_pretraining.CausalPretrainingConfig(),
    # For tests: made in a few seconds, real in every part, and good for nothing else.
    "gpt2-micro": causal_pretraining.CausalPretrainingConfig(
        pieces=512, positions=512, layers=1, width=64, heads=2, fitting=10, steps=10, batch=8,
        length=64, sizes=CorpusSizes(found=400, prose=100, world=100, primer=1), packages=(),
    ),
}  # fmt: skip
ENCODERS = {
    "bert-tiny": encoder_pretraining.EncoderPretrainingConfig(),
    # For tests, likewise.
    "bert-micro": encoder_pretraining.EncoderPretrainingConfig(
        pieces=1024, positions=512, layers=2, width=64, heads=2, waves=16, steps=10, batch=8,
        length=64, opinions=300, sizes=CorpusSizes(found=400, prose=100, world=100, primer=1, tasks=0.0),
        packages=(),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class _BuildPlan:
    """How a model is made into a folder, and what of ours decides it: recipe and texts."""

    pretrain: Callable[[Path, Callable[[str, float], None]], None]
    decided: tuple[object, ...]


def _plan(name: str) -> _BuildPlan | None:
    """The plan of a name in either table of recipes, or None.

    What other packages say is left out of what decides on purpose: an upgrade of one must not make
    a new base.
    """
    if causal := CAUSAL.get(name):
        texts = training_texts([], causal.sizes, causal.seed)
        return _BuildPlan(partial(causal_pretraining.pretrain, causal), (astuple(causal), texts))
    if encoder := ENCODERS.get(name):
        texts = encoder_pretraining.encoder_texts(encoder, [])
        return _BuildPlan(partial(encoder_pretraining.pretrain, encoder), (astuple(encoder), texts))
    return None


def _folder(name: str, decided: tuple[object, ...]) -> str:
    """The cache's folder of a model: with another recipe or reader it is another model."""
    return f"{name}-{hashlib.sha256(repr(decided).encode()).hexdigest()[:12]}"


def find_built(name: str, cache: Path) -> Path | None:
    """The directory of an offline model that was built before; None where it was not.

    Raises:
        ModelError: No recipe has this name.
    """
    target, _ = _place(name, cache)
    return target if target.is_dir() else None


def find_or_build(name: str, cache: Path, report: Callable[[str, float], None]) -> Path:
    """Return the directory of an offline model, and build it first if it is not cached.

    Args:
        name: `offline:` and the name of a recipe: `offline:gpt2-tiny` and `offline:bert-tiny` for
            users, `offline:gpt2-micro` and `offline:bert-micro` for tests.
        cache: Folder under which `models/` holds what was built.
        report: Told of progress, from 0 to 1; not called when the model is cached.

    Raises:
        ModelError: No recipe has this name, or the cache cannot be written.
    """
    target, plan = _place(name, cache)
    if target.is_dir():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.with_suffix(".lock")):
            if not target.is_dir():  # another process may have built it while this one waited
                build(plan, target, report)
    except OSError as error:
        raise ModelError(
            f"model cache {cache} cannot be written: {error.strerror or error}",
            "free space there, or choose another cache folder",
        ) from None
    return target


def _place(name: str, cache: Path) -> tuple[Path, _BuildPlan]:
    """Where a model of this name is built, and how."""
    short = name.removeprefix(PREFIX)
    plan = _plan(short)
    if plan is None:
        known = ", ".join(PREFIX + each for each in (*CAUSAL, *ENCODERS))
        raise ModelError(f"there is no offline model {name!r}", f"known are {known}")
    target = cache / "models" / _folder(short, plan.decided)
    return target, plan


def build(plan: _BuildPlan, target: Path, report: Callable[[str, float], None]) -> None:
    """Build into a temporary directory beside `target`, then rename it into place."""
    temporary = Path(tempfile.mkdtemp(prefix=".part-", dir=target.parent))
    try:
        plan.pretrain(temporary, report)
        temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
