"""The trace backend down until the Collector's queue is full: drops are counted, and an alert
fires."""

import re
import time
from collections.abc import Sequence
from datetime import UTC, datetime

from e2e.poll import poll_until
from e2e.stack import docker

from ..flow import BATCHES, CONSUMERS
from ..promises import Figures
from ..site import Run

QUEUE_ITEMS = 6000
OVERLOOKED = 0.02  # share of missing spans that may exist: only some are looked up by id
ROOM_SECONDS = 5.0  # for this long, the queues of both drills can hold the load
CONNECTS_AGAIN_SECONDS = 150.0  # gRPC waits up to two minutes before the next attempt
FAILED = "sum(increase(otelcol_exporter_enqueue_failed_spans[1m]))"  # not those of a drill before
# A service gave up each lost span, or the Collector accepted and then dropped it.
GIVEN_UP = (
    "sum(otel_sdk_processor_span_processed_total{error_type!=''}) or vector(0)",
    "sum(otel_sdk_exporter_span_exported_total{error_type!=''}) or vector(0)",
)
DROPPED = ("sum(otelcol_receiver_accepted_spans) - sum(otelcol_exporter_sent_spans)",)
BATCH = re.compile(r"trace_id=(\w+) span_id=(\w+) Customer of order ")
ALERT = 'count(ALERTS{alertname="TelemetryLost",alertstate="firing",signal="spans"})'


def drill(run: Run) -> Figures:
    with run.changed("otel-collector", {"TRACE_QUEUE_SIZE": str(QUEUE_ITEMS)}):
        return fill(run)


def fill(run: Run, seconds: float = 120.0, *, oldest_stay: bool = True) -> Figures:
    """Keep the trace backend down under load until the Collector drops spans.

    Args:
        seconds: Longer than a service tries to send a batch to a Collector that refuses it.
    """
    poll_until(
        lambda: not any(run.site.prometheus.values(ALERT)), "the alert of before to end", 600
    )
    before = counted(run, GIVEN_UP)
    with run.load() as intake:
        began = time.time()
        with run.without(run.stack.traces):
            time.sleep(seconds)
            poll_until(
                lambda: any(run.site.prometheus.values(FAILED)), "drops that are counted", 120
            )
        ended = time.time()
        poll_until(lambda: any(run.site.prometheus.values(ALERT)), "the alert TelemetryLost", 180)
    figures = run.reckon(intake, patience=150)
    missing = sorted(one.at for one in figures.spans.missing)
    spans = dropped(run, figures)
    if not spans:
        run.must(False, "nothing was dropped, so the count was not tested")
        return figures
    # The Collector's counters began with its new container.
    lost = counted(run, GIVEN_UP) - before + counted(run, DROPPED)
    run.must(lost >= (1 - OVERLOOKED) * spans, f"{spans} spans dropped, and {lost:.0f} counted")
    first, last = missing[int(OVERLOOKED * len(missing))] - began, missing[-1] - ended
    if oldest_stay:
        run.must(first > ROOM_SECONDS, f"dropped from {first:.0f} s on, not only the newest")
    run.must(
        last < CONNECTS_AGAIN_SECONDS, f"still dropped {last:.0f} s after the store was healthy"
    )
    run.note(
        f"{spans} spans dropped, {lost:.0f} counted, the first {first:.0f} s after the"
        f" store was gone, the last {last:.0f} s after it was back; the alert TelemetryLost fired"
    )
    return figures


def dropped(run: Run, figures: Figures) -> int:
    """Return the number of missing spans. The figures count a batch's span once for each message,
    so this counts batches by their span ids in the service's log."""
    batches = {f"process {channel}" for channel in BATCHES}
    alone = sum(one.what not in batches for one in figures.spans.missing)
    (service,) = {CONSUMERS[channel] for channel in BATCHES}
    since = datetime.fromtimestamp(run.began, UTC).isoformat()
    logs = "".join(
        docker("logs", "--since", since, one["Id"], errors=True)
        for one in run.stack.replicas(service)
    )
    return alone + sum(not run.store.has(batch) for batch in {*BATCH.findall(logs)})


def counted(run: Run, queries: Sequence[str]) -> float:
    return sum(run.site.prometheus.values(query)[0] for query in queries)
