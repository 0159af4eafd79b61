"""Section of a report about differential privacy of clients: what was spent, and by whom."""

from __future__ import annotations

from typing import Any

from common.document.blocks import Block, Heading, Paragraph, Table
from common.privacy import NOT_COVERED, epsilon
from evaluation.report.figure_tables import MAX_CLIENTS
from evaluation.report.report import Report


def build_privacy(report: Report) -> list[Block]:
    """Return what was spent, with the most exposed clients; nothing without [privacy]."""
    spent = report.privacy
    if spent is None:
        return []
    text = (
        f"Differential privacy of clients: {spent.text()}. Updates were scaled down to a norm of"
        f" {spent.clip_norm:g}, and their sum has Gaussian noise of {spent.noise_multiplier:g}"
        f" times that norm. {NOT_COVERED.capitalize()}, and what was chosen by them, such as the"
        " best version."
    )
    blocks: list[Block] = [Heading("Privacy"), Paragraph(text)]
    if by_client := epsilons(report):
        most = sorted(by_client.items(), key=lambda item: -item[1][0])[:MAX_CLIENTS]
        rows = tuple((name, str(count), f"{value:.2f}") for name, (count, value) in most)
        blocks.append(Table(("client", "versions", "ε"), rows))
    return blocks


def epsilons(report: Report) -> dict[str, tuple[int, float]]:
    """Return the number of versions with updates of each client, and ε; empty without a bound."""
    spent = report.privacy
    if spent is None or spent.epsilon is None:
        return {}
    return {
        row.client_id: (row.updates, epsilon(spent.noise_multiplier, row.updates, spent.delta))
        for row in report.contributions
    }


def privacy_fields(report: Report) -> dict[str, Any] | None:
    """Return the section as plain values; `clients` has ε by client."""
    if report.privacy is None:
        return None
    by_client = {name: value for name, (_, value) in epsilons(report).items()}
    return report.privacy.fields() | {"not_covered": NOT_COVERED, "clients": by_client}
