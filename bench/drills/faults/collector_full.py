"""The trace backend down until the Collector's queue is full: drops are counted, and an alert tells
of them."""

import time

from e2e.poll import poll_until

from ..promises import Figures
from ..site import Run

QUEUE_ITEMS = 3000
FAILED = "sum(otelcol_exporter_enqueue_failed_spans)"
ALERT = 'count(ALERTS{alertname="TelemetryLost",alertstate="firing",signal="spans"})'


def drill(run: Run) -> Figures:
    with run.changed("otel-collector", {"TRACE_QUEUE_SIZE": str(QUEUE_ITEMS)}):
        return fill(run)


def fill(run: Run, seconds: float = 60.0) -> Figures:
    """Keep the trace backend away under load until the queue holds no more, whatever it is."""
    with run.load() as intake:
        with run.without(run.stack.traces):
            time.sleep(seconds)
            poll_until(
                lambda: any(run.site.prometheus.values(FAILED)), "drops that are counted", 120
            )
        poll_until(lambda: any(run.site.prometheus.values(ALERT)), "the alert TelemetryLost", 180)
    figures = run.reckon(intake, patience=60)
    run.note(f"{len(figures.spans.missing)} spans dropped; the alert TelemetryLost fired")
    return figures
