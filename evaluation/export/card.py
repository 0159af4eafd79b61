"""Model card of an export: `README.md`, with the front matter that the hub reads.

It describes the training from the journal alone. It must not reveal a path or name of this machine,
a client's name or a client's text, so it contains only numbers, settings, class names and hub ids,
and figures under names from a fixed list.
"""

from __future__ import annotations

import json

from common.protocol.tasks import BaseRef
from common.run_directory.recorded_run import RecordedRun
from evaluation.assessed import first_title
from evaluation.export.card_data import CardData, format_code, parse_hub_id
from evaluation.export.card_evaluation import build_evaluation_section
from evaluation.export.card_federated import build_federated_section
from evaluation.export.card_privacy import build_limits_section, build_privacy_section
from evaluation.export.card_prompt import build_prompt_note
from evaluation.export.card_training import build_losses_section, build_training_section
from evaluation.export.loading_snippets import build_lm_eval_command, build_loading_snippet
from learning.models.export import base_label
from learning.offline.builder import PREFIX
from learning.offline.packaged import PACKAGED


def to_markdown(card: CardData) -> str:
    sections = (
        f"# {_title(card)}",
        _summary(card),
        _base(card),
        f"## Use\n\n{_use(card)}",
        f"## Training\n\n{build_training_section(card)}",
        build_losses_section(card),
        build_evaluation_section(card.evaluation, first_title(card.run)),
        build_federated_section(card.run, card.version),
        f"## Limits\n\n{build_limits_section(card.run)}",
        f"## Privacy\n\n{build_privacy_section(card.run, card.version)}",
        f"## Made with\n\n{_software(card)}",
    )
    return build_front_matter(card) + "\n" + "\n\n".join(each for each in sections if each) + "\n"


def build_front_matter(card: CardData) -> str:
    """Return the hub's metadata as YAML; strings are written as in JSON, which YAML reads alike."""
    config, written = card.run.config, card.written
    lines = ["license: unknown", f"library_name: {'peft' if written.adapter else 'transformers'}"]
    if card.base_on_hub:
        lines.append(f"base_model: {json.dumps(card.run.base.name)}")
        lines.append(f"base_model_relation: {'adapter' if written.adapter else 'finetune'}")
    task = "text-classification" if config.classifies else "text-generation"
    lines.append(f"pipeline_tag: {task}")
    if names := list_hub_data_sets(card.run):
        lines += ["datasets:", *(f"- {json.dumps(name)}" for name in names)]
    method = "full-parameter" if config.model.lora is None else "lora"
    objectives = dict.fromkeys(phase.objective for phase in config.phase)
    tags = ("federated-learning", "fccl", method, *objectives)
    lines += ["tags:", *(f"- {tag}" for tag in tags)]
    return "\n".join(("---", *lines, "---", ""))


def list_hub_data_sets(run: RecordedRun) -> tuple[str, ...]:
    """Return the hub ids among the run's sources in the order of its phases; never a path."""
    if run.config.sites_only:
        return ()
    names = (parse_hub_id(run.config.data.source(kind)) for kind in run.config.kinds)
    return tuple(dict.fromkeys(name for name in names if name))


def _title(card: CardData) -> str:
    kind = "adapter" if card.written.adapter else "model"
    return f"{card.run.config.run.name}, version {card.version}: a federated {kind}"


def _summary(card: CardData) -> str:
    run, config = card.run, card.run.config
    count = f"{card.written.trained:,}"
    if config.model.lora is None:
        trained = f"All {count} parameters of {base_label(run.base)} were trained."
    else:
        spec = config.model.lora
        head = ", and a classification head" if config.classifies else ""
        trained = (
            f"LoRA factors (r {spec.r}, α {spec.alpha}, dropout {spec.dropout}, modules"
            f" {_target_modules(spec.targets)}) of {base_label(run.base)} were trained{head}:"
            f" {count} parameters."
        )
    classes = f" Classes: {', '.join(map(format_code, run.labels))}." if run.labels else ""
    return (
        f"Version {card.version} of {run.total_versions} of the federated run"
        f" `{run.run_id}`. {trained} {_form(card)}{classes}"
    )


def _target_modules(targets: str | tuple[str, ...]) -> str:
    return targets if isinstance(targets, str) else ", ".join(map(format_code, targets))


def _form(card: CardData) -> str:
    if card.written.adapter:
        return "This directory is a PEFT adapter, which works on that base model only."
    stored = f"stored as {card.written.precision}"
    if card.run.config.model.lora is None:
        return f"This directory is the whole model, {stored}; there is nothing to merge."
    return f"This directory is the whole model, the adapter merged into its weights, {stored}."


def _base(card: CardData) -> str:
    base, written = card.run.base, card.written
    lines = [f"- base model: {format_code(base_label(base))}{_base_origin(card)}"]
    lines.append(f"- SHA-256 over the base's weights, configuration and tokenizer: `{base.digest}`")
    if (start := card.run.start) is not None:
        lines.append(f"- the run began with an adapter of that base: {start.describe()}")
    if written.adapter and written.base_included:
        note = "`base/` holds the base model"
        if written.seeded:
            note += (
                f" with {', '.join(map(format_code, written.seeded))}, which its checkpoint lacks"
                " and which the federation initialised from a seed and did not train"
            )
        lines.append(f"- {note}")
    elif written.adapter and not card.base_on_hub:
        lines.append(
            "- the base is not included: put it into `base/`, or export again with `--merge`"
        )
    if not written.plain:
        lines.append(
            "- attention heads were pruned (`pruning.json`), which transformers' own classes cannot"
            " describe: fccl loads this model"
        )
    return "\n".join(lines)


def _base_origin(card: CardData) -> str:
    base = card.run.base
    if card.base_on_hub:
        return f" on the Hugging Face hub, revision `{base.revision}`"
    origin = _local_origin(base)
    if not card.written.adapter:
        return f", {origin}"
    return f", {origin}, so that a merged model (`--merge`) is easier to pass on"


def _local_origin(base: BaseRef) -> str:
    if base.kind != "offline":
        return "from a directory: it is on no hub"
    if packaged := PACKAGED.get(base.name.removeprefix(PREFIX)):
        origin = f"[{packaged.title}]({packaged.source}), licence {packaged.licence}"
        package = f"the Python package `{packaged.distribution}`"
        return f"which is {origin}, converted from {package}: in this form it is on no hub"
    return "made by fccl itself: it is on no hub"


def _use(card: CardData) -> str:
    info = card.loading
    parts = ["Run in this directory:", f"```python\n{build_loading_snippet(info)}```"]
    if not info.classifies:
        parts.append(build_prompt_note(card))
    if (command := build_lm_eval_command(info)) is not None:
        parts.append(
            "With EleutherAI's lm-evaluation-harness (`pip install lm_eval[hf]`), also in this"
            " directory:"
        )
        parts.append(f"```sh\n{command}\n```")
    return "\n\n".join(parts)


def _software(card: CardData) -> str:
    (summary,) = (each for each in card.run.versions if each.version == card.version)
    return (
        f"Trained by {card.run.software}. Exported by {', '.join(card.software)}. SHA-256 of the"
        f" version as it was broadcast: `{summary.sha256}`."
    )
