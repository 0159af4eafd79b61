"""Running contribution of each client: who contributed how much, to what.

Computed from the summaries of versions alone, so that it exists for every run and every source of
scores, and can be recomputed from the journal. docs/algorithms.md has the formulas.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from typing import Annotated

from pydantic import BeforeValidator, Field

from common.protocol.fields import Count, Identifier, PhaseIndex, Record, list_to_tuple
from common.protocol.versions import UpdateSummary, VersionSummary

ALPHA = 0.2
"""Weight of the newest commit in the running contribution: about the last ten commits count."""

Number = Annotated[float, Field(allow_inf_nan=False)]


class PhaseContribution(Record):
    """What a client contributed to one phase; the fields are those of `ContributionRow`."""

    phase: PhaseIndex
    objective: Identifier
    updates: Count
    samples: Count
    share: Number


class ContributionRow(Record):
    """What a client contributed to the versions of a run.

    Attributes:
        contribution: Exponential moving average, over the commits that it took part in, of its
            weight times the number of clients in the buffer: 1 is average, and 0 if a robust rule
            has left its updates out.
        updates: Number of its updates that were applied.
        samples: Sum of the rows of these updates.
        share: Its share of the coefficients of all applied updates.
        staleness: Mean over its updates.
        score: Score of its newest update, from which its weight was computed.
        source: What the scores are computed from (`aggregation.contribution_source`).
        phases: The same by phase, for phases that it took part in.
    """

    client_id: Identifier
    contribution: Number
    updates: Count
    samples: Count
    share: Number
    staleness: Number
    score: Number
    source: Identifier
    phases: Annotated[tuple[PhaseContribution, ...], BeforeValidator(list_to_tuple)] = ()


def contribution_rows(
    versions: Iterable[VersionSummary], objectives: Sequence[str], source: str
) -> tuple[ContributionRow, ...]:
    """Return a row for each client of which an update was applied, by client id.

    Args:
        versions: Summaries in the order of commits.
        objectives: Objective of each phase of the plan.
        source: `aggregation.contribution_source` of the run.
    """
    versions = list(versions)
    updates: dict[str, list[tuple[int, UpdateSummary]]] = defaultdict(list)
    totals: dict[int, float] = defaultdict(float)  # of coefficients, by phase
    for version in versions:
        for update in version.updates:
            updates[update.client_id].append((version.phase, update))
            totals[version.phase] += _coefficient(update)
    running = running_contributions(versions)
    return tuple(
        _row(client, running[client], updates[client], totals, objectives, source)
        for client in sorted(updates)
    )


def running_contributions(versions: Iterable[VersionSummary]) -> Mapping[str, float]:
    """Return the running contribution of each client; see `ContributionRow.contribution`."""
    return reduce(add_commit, versions, {})


def add_commit(running: Mapping[str, float], version: VersionSummary) -> Mapping[str, float]:
    """Return the running contributions after one more version."""
    weights: dict[str, float] = defaultdict(float)
    for update in version.updates:
        weights[update.client_id] += 0.0 if update.left_out else update.weight
    after = dict(running)
    for client, weight in weights.items():
        relative = weight * len(weights)
        after[client] = (1 - ALPHA) * running.get(client, relative) + ALPHA * relative
    return after


def _row(
    client: str,
    contribution: float,
    own: Sequence[tuple[int, UpdateSummary]],
    totals: Mapping[int, float],
    objectives: Sequence[str],
    source: str,
) -> ContributionRow:
    updates = [update for _, update in own]
    return ContributionRow(
        client_id=client,
        contribution=contribution,
        updates=len(updates),
        samples=_samples(updates),
        share=_share(updates, sum(totals.values())),
        staleness=sum(update.staleness for update in updates) / len(updates),
        score=updates[-1].score,
        source=source,
        phases=tuple(
            _phase([u for at, u in own if at == phase], phase, totals[phase], objectives)
            for phase in sorted({phase for phase, _ in own})
        ),
    )


def _phase(
    updates: Sequence[UpdateSummary], phase: int, total: float, objectives: Sequence[str]
) -> PhaseContribution:
    return PhaseContribution(
        phase=phase,
        objective=objectives[phase] if phase < len(objectives) else "unknown",
        updates=len(updates),
        samples=_samples(updates),
        share=_share(updates, total),
    )


def _samples(updates: Sequence[UpdateSummary]) -> int:
    return sum(update.stats.num_samples for update in updates)


def _share(updates: Sequence[UpdateSummary], total: float) -> float:
    return sum(_coefficient(update) for update in updates) / total if total else 0.0


def _coefficient(update: UpdateSummary) -> float:
    return 0.0 if update.left_out else update.coefficient


def contribution_table(
    rows: Sequence[ContributionRow],
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return header and cells of the table that people read: in status, report and screen.

    Its columns are the fields of `ContributionRow`; runs of several phases have one for the share
    of each.
    """
    phases = sorted({(part.phase, part.objective) for row in rows for part in row.phases})
    shown = phases if len(phases) > 1 else []
    header = ("client", "contribution", "share", *(f"of {name}" for _, name in shown))
    cells = []
    for row in rows:
        own = {part.phase: part.share for part in row.phases}
        parts = (f"{own[at]:.0%}" if at in own else "-" for at, _ in shown)
        counts = (f"{row.updates:,}", f"{row.samples:,}", f"{row.staleness:.1f}")
        first = (row.client_id, f"{row.contribution:.2f}", f"{row.share:.0%}")
        cells.append((*first, *parts, *counts, f"{row.score:.3g}"))
    return (*header, "updates", "rows", "staleness", "score"), cells
