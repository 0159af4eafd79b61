"""The model card of an export: `README.md`, with the front matter that the hub reads.

It tells what was trained, by how many, how, and how well, from the journal alone. What it must not
tell: a path or name of this machine, a client's name, a client's text. So only numbers, settings,
class names and hub ids get into it, and every name of a figure is one of a known list.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from common.config.config import PhaseConfig
from common.protocol.fields import RowKind
from common.protocol.versions import VersionSummary
from evaluation.export.loading_snippets import LoadingInfo, lm_eval_command, loading_snippet
from evaluation.run_record import Recorded
from learning.data import hub_data
from learning.models.export import ExportSummary, base_label

FILES = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".txt")
"""A source that ends so is a file, even where it has the form of a hub id."""
_KINDS: dict[RowKind, str] = {
    "sft": "instructions with answers",
    "va": "preference pairs",
    "cls": "labelled texts",
}
_UNITS = {
    "sft": "nats per response token",
    "dpo": "loss per pair",
    "classification": "nats per text",
}
_FIGURES = (
    *("rows", "nats_per_token", "perplexity", "bits_per_byte", "loss", "accuracy", "macro_f1"),
    *("accuracy_per_token", "reward_accuracy", "reward_margin"),
)
"""The names in a report of what may be shown: any other name may be a client's."""


@dataclass(frozen=True)
class CardData:
    """What a card is made of.

    Attributes:
        run: As its directory tells it.
        version: That was exported.
        written: What the export is.
        evaluation: The evaluation of this version as it lies in the run directory, or nothing.
        software: What wrote the export, each with its version.
    """

    run: Recorded
    version: int
    written: ExportSummary
    evaluation: Mapping[str, Any]
    software: Sequence[str]

    @property
    def loading(self) -> LoadingInfo:
        """What the snippets need to know."""
        return LoadingInfo(
            objective=self.run.config.phase[0].objective,
            labels=self.run.labels,
            max_length=self.run.config.model.max_length,
            written=self.written,
            revision=self.run.base.revision,
        )

    @property
    def on_hub(self) -> bool:
        """Whether the base can be had from a hub."""
        return self.run.base.kind == "hub"


def markdown(facts: CardData) -> str:
    """The whole card."""
    sections = (
        f"# {_title(facts)}",
        _what(facts),
        _base(facts),
        f"## Use\n\n{_use(facts)}",
        f"## Training\n\n{_training(facts)}",
        _losses(facts),
        _evaluation(facts),
        f"## Limits\n\n{_LIMITS}",
        f"## Privacy\n\n{_PRIVACY}",
        f"## Made with\n\n{_software(facts)}",
    )
    return front_matter(facts) + "\n" + "\n\n".join(each for each in sections if each) + "\n"


def front_matter(facts: CardData) -> str:
    """The hub's metadata, as YAML; strings as JSON has them, which YAML reads alike."""
    config, written = facts.run.config, facts.written
    lines = ["license: unknown", f"library_name: {'peft' if written.adapter else 'transformers'}"]
    if facts.on_hub:
        lines.append(f"base_model: {json.dumps(facts.run.base.name)}")
        lines.append(f"base_model_relation: {'adapter' if written.adapter else 'finetune'}")
    task = "text-classification" if config.classifies else "text-generation"
    lines.append(f"pipeline_tag: {task}")
    if named := datasets(facts.run):
        lines += ["datasets:", *(f"- {json.dumps(name)}" for name in named)]
    how = "full-parameter" if config.model.lora is None else "lora"
    objectives = dict.fromkeys(phase.objective for phase in config.phase)
    lines += ["tags:", *(f"- {tag}" for tag in ("federated-learning", "fccl", how, *objectives))]
    return "\n".join(("---", *lines, "---", ""))


def datasets(run: Recorded) -> tuple[str, ...]:
    """The hub ids among the run's sources, in the order of its phases; never a path."""
    found = (_dataset(run.config.data.source(kind)) for kind in run.config.kinds)
    return tuple(dict.fromkeys(name for name in found if name))


def _dataset(source: str) -> str | None:
    named = hub_data.parse_source(source)
    return named.name if named and not source.lower().endswith(FILES) else None


def _title(facts: CardData) -> str:
    kind = "adapter" if facts.written.adapter else "model"
    return f"{facts.run.config.run.name}, version {facts.version}: a federated {kind}"


def _what(facts: CardData) -> str:
    run, config = facts.run, facts.run.config
    count = f"{facts.written.trained:,}"
    if config.model.lora is None:
        trained = f"All {count} parameters of {base_label(run.base)} were trained."
    else:
        spec = config.model.lora
        head = ", and a classification head" if config.classifies else ""
        trained = (
            f"LoRA factors (r {spec.r}, α {spec.alpha}, dropout {spec.dropout}, modules"
            f" {_targets(spec.targets)}) of {base_label(run.base)} were trained{head}:"
            f" {count} numbers."
        )
    form = _form(facts)
    classes = f" Classes: {', '.join(map(_code, run.labels))}." if run.labels else ""
    return (
        f"Version {facts.version} of {run.plan.total_versions} of the federated run"
        f" `{run.run_id}`. {trained} {form}{classes}"
    )


def _targets(targets: str | tuple[str, ...]) -> str:
    return targets if isinstance(targets, str) else ", ".join(map(_code, targets))


def _form(facts: CardData) -> str:
    if facts.written.adapter:
        return "This directory is a PEFT adapter: it works on that base model and on no other."
    stored = f"stored as {facts.written.precision}"
    if facts.run.config.model.lora is None:
        return f"This directory is the whole model, {stored}; there is nothing to merge."
    return f"This directory is the whole model, the adapter merged into its weights, {stored}."


def _base(facts: CardData) -> str:
    base, written = facts.run.base, facts.written
    lines = [f"- base model: {_code(base_label(base))}{_origin(facts)}"]
    lines.append(f"- SHA-256 over the base's weights, configuration and tokenizer: `{base.digest}`")
    if written.adapter and written.base_included:
        note = "`base/` holds the base model"
        if written.seeded:
            note += (
                f" with {', '.join(map(_code, written.seeded))}, which its checkpoint lacks and"
                " which the federation drew from a seed and left as they were"
            )
        lines.append(f"- {note}")
    elif written.adapter and not facts.on_hub:
        lines.append(
            "- the base is not here: put it into `base/`, or make this export anew with `--merge`"
        )
    if not written.plain:
        lines.append(
            "- attention heads were pruned (`pruning.json`), which transformers' own classes cannot"
            " describe: fccl loads it"
        )
    return "\n".join(lines)


def _origin(facts: CardData) -> str:
    base = facts.run.base
    if facts.on_hub:
        return f" on the Hugging Face hub, revision `{base.revision}`"
    where = "made by fccl itself" if base.kind == "offline" else "from a directory"
    if not facts.written.adapter:
        return f", {where}: it is on no hub"
    return f", {where}: it is on no hub, so that a merged model (`--merge`) is easier to pass on"


def _use(facts: CardData) -> str:
    of = facts.loading
    parts = ["Run in this directory:", f"```python\n{loading_snippet(of)}```"]
    if not of.classifies:
        parts.append(
            "Prompts have the Alpaca form, and an answer ends with the end-of-text token. Prompt"
            " and answer are tokenised apart, without special tokens."
        )
    if (command := lm_eval_command(of)) is not None:
        parts.append(
            "With EleutherAI's lm-evaluation-harness (`pip install lm_eval[hf]`), here, too:"
        )
        parts.append(f"```sh\n{command}\n```")
    return "\n\n".join(parts)


def _training(facts: CardData) -> str:
    run, config = facts.run, facts.run.config
    aggregation, schedule = config.aggregation, config.schedule
    mode = "asynchronous" if schedule.reissue == "immediate" else "synchronous"
    return "\n\n".join(
        (
            f"{len(run.rows)} clients, each with rows of its own that never left it:",
            _table(("rows", "kind", "source"), _rows(run)),
            _table(
                ("phase", "objective", "versions", "local training", "rate", "batch"),
                [_phase(facts, index) for index in range(len(config.phase))],
            ),
            f"Schedule: {mode}, {schedule.buffer} updates per version, at most"
            f" {schedule.concurrency} tasks in flight, staleness up to {schedule.max_staleness}"
            f" versions, texts of up to {config.model.max_length} tokens.",
            f"Aggregation: FCCL weights by {aggregation.contribution_mode} from"
            f" {aggregation.contribution_source} figures, scale {aggregation.score_scale},"
            f" temperature {aggregation.temperature}, floor {aggregation.floor}, cap"
            f" {aggregation.cap}; staleness exponent {aggregation.staleness_exponent}; server rate"
            f" {aggregation.server_lr}; updates over {aggregation.clip} × the median norm:"
            f" {aggregation.over_norm}. Updates travelled as {config.codec.update}, versions as"
            f" {config.codec.adapter}.",
        )
    )


def _rows(run: Recorded) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for kind in run.config.kinds:
        count = sum(own.get(kind, 0) for own in run.rows.values())
        source = run.config.data.source(kind)
        shown = _dataset(source)
        where = "made by fccl" if source == "synthetic" else _code(shown) if shown else "private"
        rows.append((f"{count:,}", _KINDS[kind], where))
    return rows


def _phase(facts: CardData, index: int) -> tuple[str, ...]:
    phase = facts.run.config.phase[index]
    begin = facts.run.plan.phase_end(index - 1) if index else 0
    done = min(max(facts.version - begin, 0), phase.versions)
    local = f"{phase.local_steps} steps" if phase.local_steps else f"{phase.local_epochs} epochs"
    versions = f"{done} of {phase.versions}"
    rate = f"{phase.lr:g}, {phase.lr_schedule}"
    return (str(index + 1), _objective(phase), versions, local, rate, str(phase.batch_size))


def _objective(phase: PhaseConfig) -> str:
    if phase.dpo is None:
        return phase.objective
    extra = f", + {phase.sft_weight:g} · sft" if phase.sft_weight else ""
    return f"dpo (β {phase.beta:g}, {phase.preference_loss}{extra})"


def _losses(facts: CardData) -> str:
    """By phase: training loss and the clients' own holdouts, at its first and newest version."""
    made = [each for each in facts.run.summaries if each.updates and each.version <= facts.version]
    rows = []
    for index, phase in enumerate(facts.run.config.phase):
        if own := [each for each in made if each.phase == index]:
            rows.append((str(index + 1), _UNITS[phase.objective], *_course(own)))
    if not rows:
        return "No update was aggregated yet: this is what the run began with."
    header = ("phase", "unit", "updates", "training loss", "holdout loss", "holdout accuracy")
    return (
        "Loss from the first to the newest version of a phase; holdouts are the clients' own,"
        " measured before and after their local training:\n\n" + _table(header, rows)
    )


def _course(own: Sequence[VersionSummary]) -> tuple[str, ...]:
    first, last = own[0], own[-1]
    return (
        str(sum(len(each.updates) for each in own)),
        _change(first.train_loss, last.train_loss),
        _change(first.holdout_before, last.holdout_after),
        _change(first.accuracy_before, last.accuracy_after),
    )


def _change(before: float | None, after: float | None) -> str:
    return "" if before is None or after is None else f"{before:.3f} to {after:.3f}"


def _evaluation(facts: CardData) -> str:
    rows = list(_figures(facts.evaluation))
    if not rows:
        return ""
    table = _table(("rows", "figure", "base", "federated"), rows)
    note = _rewards(facts.evaluation)
    return f"## Evaluation\n\nOn held-out rows that no client has:\n\n{table}{note}"


def _rewards(found: Mapping[str, Any]) -> str:
    """What rewards compare with: without it, those of the base are a riddle."""
    kinds = found.get("kinds")
    of = kinds.get("va") if isinstance(kinds, dict) else None
    beta, reference = (of.get("beta"), of.get("reference")) if isinstance(of, dict) else (0, 0)
    if not isinstance(beta, int | float) or not isinstance(reference, int) or not beta:
        return ""
    return (
        f"\n\nRewards are β = {beta:g} times the log-probability over that of version {reference},"
        " with which the alignment to preferences began."
    )


def _figures(found: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """Base beside federated by kind of rows, and nothing else: reports show rows."""
    kinds = found.get("kinds")
    pairs = {name: _heldout(of) for name, of in kinds.items()} if isinstance(kinds, dict) else {}
    if not any(pairs.values()):
        pairs = {"": (found.get("base"), found.get("federated"))}
    for kind, title in (("", ""), *_KINDS.items()):
        base, federated = pairs.get(kind) or (None, None)
        if isinstance(base, dict) and isinstance(federated, dict):
            for name in _FIGURES:
                pair = (base.get(name), federated.get(name))
                if all(isinstance(value, int | float) for value in pair):
                    yield (title, name.replace("_", " "), *(f"{value:.4g}" for value in pair))


def _heldout(of: Any) -> tuple[Any, Any] | None:
    """The figures of the base and of the version on the held-out rows of one kind."""
    found = of.get("heldout") if isinstance(of, dict) else None
    return (found[0], found[-1]) if isinstance(found, list) and len(found) > 1 else None


def _software(facts: CardData) -> str:
    (summary,) = (each for each in facts.run.summaries if each.version == facts.version)
    return (
        f"Trained by {facts.run.software}. Exported by {', '.join(facts.software)}. SHA-256 of the"
        f" version as it was broadcast: `{summary.sha256}`."
    )


def _code(text: str) -> str:
    """Text as Markdown shows it verbatim, in one line."""
    return f"`{' '.join(text.replace('`', chr(39)).split())}`"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


_LIMITS = """\
A research model: it inherits what the base model knows wrongly and dislikes unfairly, it has
learned from these clients' rows alone, and nobody has checked its answers for truth or safety.
Contribution weights rest on figures that clients report. Licence and intended use are those of the
base model and of the clients' data: whoever publishes this has to name them."""

_PRIVACY = """\
Rows stayed with their clients; what travelled were weight changes and statistics about training.
That is no proof against the model remembering what it was trained on: no differential privacy was
used and updates were not aggregated under encryption, so the coordinator could read each of them,
and whoever has this model can ask it. Do not publish it if its answers could harm a client."""
