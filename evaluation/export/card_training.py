"""Sections of a model card about training: data, plan, aggregation, losses."""

from __future__ import annotations

from collections.abc import Sequence

from common.config.config import FederationConfig, ModelConfig, PhaseConfig
from common.protocol.versions import VersionSummary
from common.run_directory.recorded_run import RecordedRun
from evaluation.export.card_data import (
    KIND_TITLES,
    CardData,
    format_code,
    format_table,
    parse_hub_id,
)
from evaluation.export.card_participants import (
    Participants,
    describe_participants,
    find_participants,
)

_UNITS = {
    "sft": "nats per response token",
    "dpo": "loss per pair",
    "kto": "loss per answer",
    "classification": "nats per text",
}


def build_training_section(card: CardData) -> str:
    run, config = card.run, card.run.config
    who = find_participants(run, card.version)
    aggregation, schedule = config.aggregation, config.schedule
    mode = "asynchronous" if schedule.reissue == "immediate" else "synchronous"
    return "\n\n".join(
        (
            f"{describe_participants(who)}:",
            format_table(("rows", "kind", "source"), _data_rows(run, who)),
            format_table(
                ("phase", "objective", "versions", "local training", "rate", "batch"),
                [_phase_row(card, index) for index in range(len(config.phase))],
            ),
            f"Schedule: {mode}, {schedule.buffer} updates per version, at most"
            f" {schedule.concurrency} tasks in flight, staleness up to {schedule.max_staleness}"
            f" versions, texts of up to {config.model.max_length} tokens."
            f"{_precision_note(config.model)}",
            f"Aggregation: {_weights(config)}; staleness exponent"
            f" {aggregation.staleness_exponent}; server rate {aggregation.server_lr};"
            f" {_clipping(config)}. Updates travelled as {config.codec.update}, versions as"
            f" {config.codec.adapter}.",
        )
    )


def _weights(config: FederationConfig) -> str:
    aggregation = config.aggregation
    if config.privacy.enabled:
        return f"each update has the weight 1/{config.schedule.buffer}"
    return (
        f"FCCL weights by {aggregation.contribution_mode} from {aggregation.contribution_source}"
        f" figures, scale {aggregation.score_scale}, temperature {aggregation.temperature}, floor"
        f" {aggregation.floor}, cap {aggregation.cap}"
    )


def _clipping(config: FederationConfig) -> str:
    privacy, aggregation = config.privacy, config.aggregation
    if privacy.enabled:
        return f"updates over a norm of {privacy.clip_norm:g}: clip; then Gaussian noise"
    return f"updates over {aggregation.clip} × the median norm: {aggregation.over_norm}"


def _precision_note(model: ModelConfig) -> str:
    """Return a sentence on how the frozen base was held; nothing for the defaults."""
    if model.quantization != "none":
        return (
            f" The frozen base was quantized to {model.quantization} by bitsandbytes in training;"
            " the adapter is meant for the unquantized base."
        )
    return f" The frozen base was held in {model.dtype}." if model.dtype != "auto" else ""


def build_losses_section(card: CardData) -> str:
    made = [each for each in card.run.versions if each.updates and each.version <= card.version]
    rows = []
    for index, phase in enumerate(card.run.config.phase):
        if own := [each for each in made if each.phase == index]:
            rows.append((str(index + 1), _UNITS[phase.objective], *_changes(own)))
    if not rows:
        return "No update has been aggregated yet: this is the version with which the run began."
    header = ("phase", "unit", "updates", "training loss", "holdout loss", "holdout accuracy")
    return (
        "Loss from the first to the newest version of a phase; holdouts are the clients' own,"
        " measured before and after their local training:\n\n" + format_table(header, rows)
    )


def _data_rows(run: RecordedRun, who: Participants) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for kind in run.config.kinds:
        if kind in who.rows:
            rows.append((f"{who.rows[kind]:,}", KIND_TITLES[kind], "the sites' own"))
        if not run.rows:
            continue
        count = sum(own.get(kind, 0) for own in run.rows.values())
        source = run.config.data.source(kind)
        hub_id = parse_hub_id(source)
        origin = format_code(hub_id) if hub_id else "private"
        if source == "synthetic":
            origin = "made by fccl"
        rows.append((f"{count:,}", KIND_TITLES[kind], origin))
    return rows


def _phase_row(card: CardData, index: int) -> tuple[str, ...]:
    phase = card.run.config.phase[index]
    begin = card.run.phase_ends[index - 1] if index else 0
    done = min(max(card.version - begin, 0), phase.versions)
    local = f"{phase.local_steps} steps" if phase.local_steps else f"{phase.local_epochs} epochs"
    if limits := card.run.config.schedule.adaptive_steps:
        local = f"{limits[0]} to {limits[1]} steps by speed, usually {phase.local_steps}"
    versions = f"{done} of {phase.versions}"
    rate = f"{phase.lr:g}, {phase.lr_schedule}"
    return (str(index + 1), _objective(phase), versions, local, rate, str(phase.batch_size))


def _objective(phase: PhaseConfig) -> str:
    if phase.kto is not None:
        return f"kto (β {phase.beta:g}, weights {phase.good_weight:g} and {phase.bad_weight:g})"
    if phase.dpo is None:
        return phase.objective
    extra = f", + {phase.sft_weight:g} · sft" if phase.sft_weight else ""
    return f"dpo (β {phase.beta:g}, {phase.preference_loss}{extra})"


def _changes(own: Sequence[VersionSummary]) -> tuple[str, ...]:
    first, last = own[0], own[-1]
    return (
        str(sum(len(each.updates) for each in own)),
        _change(first.train_loss, last.train_loss),
        _change(first.holdout_before, last.holdout_after),
        _change(first.accuracy_before, last.accuracy_after),
    )


def _change(before: float | None, after: float | None) -> str:
    return "" if before is None or after is None else f"{before:.3f} to {after:.3f}"
