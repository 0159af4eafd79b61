"""Section of a model card about evaluation by the clients, on their own validation rows.

The figures come from the journal. Clients are counted, not named.
"""

from __future__ import annotations

from collections.abc import Sequence

from common.evaluation.federated import (
    FederatedEvaluation,
    federated_evaluations,
    spread_over_clients,
)
from common.evaluation.metric_info import METRICS
from common.evaluation.sums import metric_values, pool
from common.run_directory.recorded_run import RecordedRun
from evaluation.export.card_data import KIND_TITLES, format_table


def build_federated_section(run: RecordedRun, version: int) -> str:
    """Return the clients' figures of a version beside the first of its phase; empty without any."""
    evaluations = federated_evaluations(run.evaluations)
    parts = [
        _compared(before, found)
        for found in evaluations
        if found.version == version
        and (before := _first(evaluations, found)) is not None
        and _common(before, found)
    ]
    if (best := run.best_version) is not None:
        this = ", which is this one" if best == version else ""
        parts.append(
            "Best of the evaluated versions of the newest phase, over the clients that answered for"
            f" all of them: version {best}{this}."
        )
    if not parts:
        return ""
    return "\n\n".join(
        (
            "## Evaluation by the clients",
            "Each client evaluated versions on validation rows of its own, on which no task trains,"
            " and sent sums.",
            *parts,
        )
    )


def _first(
    evaluations: Sequence[FederatedEvaluation], found: FederatedEvaluation
) -> FederatedEvaluation | None:
    """Return the first evaluation with the same objective; None if that is the same."""
    first = next(each for each in evaluations if each.phase == found.phase)
    return None if first.version == found.version else first


def _common(before: FederatedEvaluation, found: FederatedEvaluation) -> list[str]:
    """Return the clients that have answered for both versions."""
    return [
        client
        for client, sums in found.sums.items()
        if sums.rows and client in before.sums and before.sums[client].rows
    ]


def _compared(before: FederatedEvaluation, found: FederatedEvaluation) -> str:
    clients, kind, metric = _common(before, found), found.kind, found.metric
    columns = []
    for each in (before, found):
        values = dict(metric_values(kind, pool(each.sums[client] for client in clients)))
        own = {client: metric_values(kind, each.sums[client]) for client in clients}
        main = {client: one[metric.key] for client, one in own.items() if metric.key in one}
        if (spread := spread_over_clients(metric, main)) is not None:
            values |= {"worst": spread.worst_value, "range": spread.range}
        columns.append(values)
    names = {each.key: each.title for each in METRICS[kind]}
    names |= {
        "worst": f"{metric.title}, worst client",
        "range": f"{metric.title}, max − min of the clients",
    }
    rows = [
        (title, *(f"{column[key]:.4g}" for column in columns))
        for key, title in names.items()
        if all(key in column for column in columns)
    ]
    total = sum(found.sums[client].rows for client in clients)
    header = (f"{KIND_TITLES[kind]}", f"version {before.version}", f"version {found.version}")
    who = "1 client" if len(clients) == 1 else f"{len(clients)} clients"
    return f"{who}, {total:,} rows:\n\n{format_table(header, rows)}"
