"""Metrics of a running process, as Prometheus reads them."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from cli.control.health import request

LOOPBACK = "127.0.0.1"


def read_metrics(port: int) -> dict[str, float]:
    """Return every sample by its name, followed by the values of its labels."""
    well, text = request(LOOPBACK, port, "/metrics")
    if not well:
        return {}
    return {
        name + "".join(label for _, label in sorted(labels.items())): value
        for family in text_string_to_metric_families(text)
        for name, labels, value, *_ in family.samples
    }
