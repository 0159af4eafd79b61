"""Export of a trained version as a directory that others can use: a PEFT adapter or a whole model.

Nobody needs fccl to read it: transformers and peft load what is written, except for an encoder
whose attention heads were pruned, which transformers cannot describe (`learning.pruning.record`).

After the data path: a version's tensors (`learning.models.lora`) → here → a directory, to which
`evaluation.export.export` adds the model card.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch
from peft import PeftModel
from safetensors.numpy import save_file
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from common.errors import ConfigError, ModelError
from common.protocol import codec
from common.protocol.fields import ObjectiveName
from common.protocol.manifest import is_model_file, make_manifest
from common.protocol.tasks import BaseRef, LoraSpec, PromptSpec
from common.protocol.tensors import Tensors
from common.run_directory.records import AdapterOrigin
from learning.evaluation.generation import generation_config
from learning.models import lora, objective_model
from learning.models.directory import ADAPTER_CONFIG
from learning.models.encoders import load_encoder
from learning.models.exported_adapter import WEIGHTS, origin_metadata, prompt_digest
from learning.models.loader import LoadedModel, load_tokenizer, quiet
from learning.prompts.form import PromptForm, prompt_form
from learning.pruning.record import FILE, read_pruning

Precision = Literal["float32", "bfloat16"]

BASE_FOLDER = "base"
"""Name of the folder of an adapter's base model, where that lies beside the adapter."""
_CPU = torch.device("cpu")
_LOCAL_KEYS = ("is_local", "local_files_only")  # about this machine, not about the tokenizer
_PROBE = 12  # tokens on which the merged model is compared with the adapted one
_TOLERANCE = 1e-3  # of the largest logit; a merge in float32 stays far below


@dataclass(frozen=True)
class ExportedModel:
    """One version of a run."""

    objective: ObjectiveName  # of the run's first phase, which decides the kind of model
    base: BaseRef
    path: Path  # directory of the base model on this machine
    labels: tuple[str, ...]  # class names, where the run classifies
    lora: LoraSpec | None  # None where all parameters were trained
    config: Mapping[str, Any]  # the run's `adapter_config.json`
    tensors: Tensors  # the trained ones
    prompt: PromptSpec | None = None  # of a model that generates; None: the Alpaca form
    run: str | None = None  # the run's id, to be named in an adapter's file
    version: int = 0


@dataclass(frozen=True)
class ExportSummary:
    """Facts about an export, for the model card."""

    adapter: bool  # whether it is an adapter; otherwise it is a whole model
    base: str  # an adapter's base: a hub id, or `./base` beside the adapter
    base_included: bool  # whether `base/` was written
    precision: Precision
    plain: bool  # whether transformers' own classes can build the model (or the base)
    seeded: tuple[str, ...]  # weights of the base that neither checkpoint nor adapter has
    trained: int  # number of values that the federation trained
    ends: tuple[str, ...] = ()  # tokens that end an answer; empty for a classifier


def write_model(trained: ExportedModel, out: Path, precision: Precision) -> ExportSummary:
    """Write a plain model directory: the adapter merged into its base, or all trained parameters.

    The merge is computed in float32, whatever precision is stored.

    Raises:
        ModelError: Base and adapter do not fit, or cannot be merged.
    """
    loaded = objective_model.load_for_objective(
        trained.objective, trained.path, trained.labels, _CPU
    )
    adapted = lora.attach(loaded.model, trained.lora, seed=0)  # overwritten by the next line
    lora.write_adapter(adapted, trained.tensors)
    model = _merged(adapted) if isinstance(adapted, PeftModel) else adapted
    texts = _export_texts(loaded.tokenizer, trained)
    _save(model, texts, trained.path, out, precision)
    return _model_summary(trained, texts, precision)


def describe_export(trained: ExportedModel) -> ExportSummary:
    """Return what `write_adapter` would write by default, or `write_model` without LoRA.

    Raises:
        ModelError: The base cannot be loaded.
    """
    if trained.lora is not None:
        return _plan_adapter(trained, None).summary
    texts = _export_texts(load_tokenizer(trained.path)[0], trained)
    return _model_summary(trained, texts, "float32")


def _model_summary(
    trained: ExportedModel, texts: _ExportTexts, precision: Precision
) -> ExportSummary:
    return ExportSummary(
        adapter=False,
        base="",
        base_included=False,
        precision=precision,
        plain=_plain(trained.path),
        seeded=(),
        trained=_size(trained.tensors),
        ends=texts.ends,
    )


def write_adapter(trained: ExportedModel, out: Path, with_base: bool | None) -> ExportSummary:
    """Write a PEFT adapter directory with the tokenizer, and with the base where that is needed.

    By default the base is written beside the adapter if it is on no hub, since nobody else could
    get the same bytes, or if a part of it was drawn from a seed.

    Args:
        trained: A version that was trained with LoRA.
        out: An existing directory.
        with_base: Whether to write the base, too; None decides as above.

    Raises:
        ConfigError: The base is refused, but nobody could make it again without fccl.
        ModelError: The base cannot be loaded.
    """
    plan = _plan_adapter(trained, with_base)
    written, texts, loaded = plan.summary, plan.texts, plan.loaded
    _write_config(trained, written.base_included, out)
    _save_tokenizer(texts.tokenizer, out)
    if texts.form is not None:  # the base keeps its own settings, which may differ
        generation_config(texts.form).save_pretrained(out)
    if written.base_included and loaded:
        _save(loaded.model, texts, trained.path, out / BASE_FOLDER, "float32")
    elif written.base_included:
        _copy(trained.path, out / BASE_FOLDER)
    metadata = _metadata(trained, out / BASE_FOLDER if written.base_included else None)
    save_file(trained.tensors, out / WEIGHTS, metadata=metadata)
    return written


def write_bare_adapter(trained: ExportedModel, out: Path) -> None:
    """Write an adapter without tokenizer and base, for a machine that does not have the base."""
    _write_config(trained, False, out)
    save_file(trained.tensors, out / WEIGHTS, metadata=_metadata(trained, None))


def _write_config(trained: ExportedModel, base_included: bool, out: Path) -> None:
    elsewhere = trained.base.kind == "hub" and not base_included
    fields = {
        **trained.config,
        "base_model_name_or_path": _base_name(trained.base, base_included),
        "revision": trained.base.revision if elsewhere else None,
    }
    (out / ADAPTER_CONFIG).write_text(json.dumps(fields, indent=2, sort_keys=True))


def _base_name(base: BaseRef, included: bool) -> str:
    """Return where an adapter finds its base: a hub id, or a folder beside it (no hub id)."""
    return base.name if base.kind == "hub" and not included else f"./{BASE_FOLDER}"


@dataclass(frozen=True)
class _AdapterPlan:
    """What an adapter's directory will hold."""

    summary: ExportSummary
    texts: _ExportTexts
    loaded: LoadedModel | None  # the base of a classifier


def _plan_adapter(trained: ExportedModel, with_base: bool | None) -> _AdapterPlan:
    """Decide what `write_adapter` writes; it has the arguments and the errors."""
    loaded: LoadedModel | None = None
    seeded: tuple[str, ...] = ()
    if trained.objective == "classification":
        loaded = objective_model.load_for_objective(
            trained.objective, trained.path, trained.labels, _CPU
        )
        seeded = _seeded(trained, loaded)
    if seeded and with_base is False:
        raise ConfigError(
            f"the checkpoint of {base_label(trained.base)} lacks {seeded[0]}, which fccl drew from"
            " a seed: the adapter is wrong on any other base",
            "leave out --without-base, or export with --merge",
        )
    included = with_base if with_base is not None else trained.base.kind != "hub" or bool(seeded)
    texts = _export_texts(loaded.tokenizer if loaded else load_tokenizer(trained.path)[0], trained)
    summary = ExportSummary(
        adapter=True,
        base=_base_name(trained.base, included),
        base_included=included,
        precision="float32",
        plain=_plain(trained.path),
        seeded=seeded,
        trained=_size(trained.tensors),
        ends=texts.ends,
    )
    return _AdapterPlan(summary, texts, loaded)


def _metadata(trained: ExportedModel, beside: Path | None) -> dict[str, str]:
    """Return the metadata of an adapter's file: its origin, for the warm start of another run.

    A base model that was saved again beside the adapter has another digest than that of the run.
    """
    if trained.run is None:
        return {"format": "pt"}
    digests = [trained.base.digest]
    if beside is not None:
        digests.append(codec.digest(make_manifest(beside)))
    return origin_metadata(
        AdapterOrigin(
            bases=tuple(dict.fromkeys(digests)),
            run=trained.run,
            version=trained.version,
            labels=trained.labels,
            prompt=prompt_digest(trained.prompt),
        )
    )


def base_label(base: BaseRef) -> str:
    """Return a base model's name for others: of a local one, the last part of its path."""
    return Path(base.name).name or "local" if base.kind == "local" else base.name


def _size(tensors: Tensors) -> int:
    return sum(array.size for array in tensors.values())


def _plain(path: Path) -> bool:
    """Return whether `config.json` describes the model, which it does except for removed heads."""
    record = read_pruning(path)
    return record is None or all(len(heads) == record.source_heads for heads in record.heads)


def _merged(adapted: PeftModel) -> PreTrainedModel:
    """Return the base with the adapter merged into its weights.

    Raises:
        ModelError: The result computes something else, because an adapted weight serves two layers.
    """
    adapted.eval()
    before = _logits(adapted)
    with quiet():
        model = cast(PreTrainedModel, cast(Any, adapted).merge_and_unload())
    torch.nn.Module.eval(model)
    error = float((_logits(model) - before).abs().max() / before.abs().max().clamp(min=1.0))
    if not error <= _TOLERANCE:
        raise ModelError(
            f"the merged model differs from the adapted one by {error:.1e} of its largest logit",
            "export the adapter without --merge: it changes a weight that the model uses twice",
        )
    return model


def _logits(model: torch.nn.Module) -> torch.Tensor:
    """Return the logits of the first tokens: (1, T, V), or (1, classes) of a classifier."""
    with torch.inference_mode():
        logits: torch.Tensor = model(input_ids=torch.arange(_PROBE)[None]).logits
    return logits


def _seeded(trained: ExportedModel, loaded: LoadedModel) -> tuple[str, ...]:
    """Return weights that come from neither the checkpoint nor the adapter, but from fccl's seed.

    They are those that differ after a second load with another seed.
    """
    other = load_encoder(trained.path, trained.labels, _CPU, objective_model.HEAD_SEED + 1).model
    reloaded = other.state_dict()
    drawn = [
        name
        for name, tensor in loaded.model.state_dict().items()
        if not torch.equal(tensor, reloaded[name])
    ]
    in_adapter = {name.removeprefix("base_model.model.") for name in trained.tensors}
    return tuple(name for name in drawn if name not in in_adapter)


@dataclass(frozen=True)
class _ExportTexts:
    """Tokenizer of an export, and the prompt form of a model that generates."""

    tokenizer: PreTrainedTokenizerBase
    form: PromptForm | None

    @property
    def ends(self) -> tuple[str, ...]:
        if self.form is None:
            return ()
        ids = list(self.form.end_ids)
        return tuple(str(each) for each in cast(Any, self.tokenizer).convert_ids_to_tokens(ids))


def _save(
    model: PreTrainedModel, texts: _ExportTexts, source: Path, out: Path, precision: Precision
) -> None:
    """Write a model directory as `from_pretrained` reads it; a pruned model keeps its record."""
    torch.nn.Module.to(model, getattr(torch, precision))
    if texts.form is not None:
        _set_generation(model, texts.form)
    try:
        with quiet():
            model.save_pretrained(out)
    except ValueError as error:  # settings of the base that transformers refuses
        reason = str(error).strip().splitlines()[0][:200]
        raise ModelError(
            f"the model cannot be saved: {reason}", "repair the base's config.json"
        ) from None
    _save_tokenizer(texts.tokenizer, out)
    if (source / FILE).is_file():
        shutil.copyfile(source / FILE, out / FILE)


def _set_generation(model: PreTrainedModel, form: PromptForm) -> None:
    """Set the generation settings of fccl: greedy answers with the end tokens of training.

    The base's own settings are removed, also from `config.json`, where old checkpoints have them:
    transformers would refuse to save the model.
    """
    config: Any = model.config
    settings: Any = generation_config(form)
    for name in list(config._get_generation_parameters()):
        config.__dict__.pop(name, None)
    config.eos_token_id = settings.eos_token_id
    settings._from_model_config = False  # else config.json, without a pad token, takes precedence
    model.generation_config = settings


def _export_texts(tokenizer: PreTrainedTokenizerBase, trained: ExportedModel) -> _ExportTexts:
    """Return the tokenizer of an export.

    For generation it pads on the left, and its chat template is the one with which the model was
    trained. That of a classifier has no template.
    """
    if trained.objective == "classification":
        tokenizer.chat_template = None
        return _ExportTexts(tokenizer, None)
    tokenizer.padding_side = "left"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token  # as in `learning.models.loader`
    form = prompt_form(tokenizer, trained.prompt)
    tokenizer.chat_template = _plain_template(form.spec)
    return _ExportTexts(tokenizer, form)


def _plain_template(prompt: PromptSpec) -> str:
    """Return a run's template for readers that do not set its variable `turns`."""
    if prompt.turns == "all" or "turns" not in prompt.template:
        return prompt.template
    return f"{{% set turns = {prompt.turns!r} %}}{prompt.template}"


def _save_tokenizer(tokenizer: PreTrainedTokenizerBase, out: Path) -> None:
    try:
        with quiet():
            tokenizer.save_pretrained(out)
    except Exception as error:  # the tokenizers library has no class of its own for the disk's
        if type(error) is not Exception:
            raise
        raise OSError(str(error)) from None
    file = out / "tokenizer_config.json"
    fields = json.loads(file.read_text(encoding="utf-8"))
    kept = {name: value for name, value in fields.items() if name not in _LOCAL_KEYS}
    kept["padding_side"] = tokenizer.padding_side  # which save_pretrained leaves out
    file.write_text(json.dumps(kept, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _copy(source: Path, out: Path) -> None:
    """Copy the model's files byte for byte: the copy has the same digest."""
    out.mkdir()
    for file in source.iterdir():
        if is_model_file(file.name) and file.is_file():
            shutil.copyfile(file, out / file.name)
