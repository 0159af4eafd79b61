"""Check of [schedule] against the phases and the other settings; a part of `effect.py`."""

from __future__ import annotations

from collections.abc import Iterator

from common.config.config import FederationConfig

Problems = Iterator[tuple[str, str]]


def schedule_problems(config: FederationConfig) -> Problems:
    """Yield each problem with its remedy."""
    yield from _of_quorum(config)
    yield from _of_adaptive_steps(config)


def _of_quorum(config: FederationConfig) -> Problems:
    schedule = config.schedule
    if schedule.quorum is not None and schedule.reissue != "commit":
        yield (
            'schedule.quorum has no effect without rounds, with schedule.reissue = "immediate"',
            'leave it out, or set schedule.reissue = "commit"',
        )
    if schedule.quorum is not None and not config.sites_only:
        clients = config.data.clients
        if schedule.quorum > clients:
            yield (
                f"schedule.quorum = {schedule.quorum} can never be met: a round has one update of"
                f" each client, and data.clients is {clients}",
                f"set schedule.quorum to {clients} or less",
            )


def _of_adaptive_steps(config: FederationConfig) -> Problems:
    limits = config.schedule.adaptive_steps
    if limits is None:
        return
    least, most = limits
    if not 1 <= least < most:
        yield (
            f"schedule.adaptive_steps = [{least}, {most}] is no range of steps",
            "give the smallest number, 1 or more, and a larger one",
        )
    for index, phase in enumerate(config.phase):
        if phase.local_epochs:
            yield (
                f"schedule.adaptive_steps has no effect on phase.{index}, whose tasks are"
                f" {phase.local_epochs} epochs",
                "give the phase local_steps instead of local_epochs, or leave adaptive_steps out",
            )
        elif not least <= phase.local_steps <= most:
            yield (
                f"phase.{index}.local_steps = {phase.local_steps} is outside of"
                f" schedule.adaptive_steps = [{least}, {most}]; clients of median speed make them",
                "set it within these limits",
            )
