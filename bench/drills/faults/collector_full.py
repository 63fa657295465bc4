"""The trace backend down until the Collector's queue is full: drops are counted, and an alert tells
of them."""

import time

from e2e.poll import poll_until

from ..promises import Figures
from ..site import Run

QUEUE_ITEMS = 6000
ROOM_SECONDS = 5.0  # for which the queues of both drills take the load in
CONNECTS_AGAIN_SECONDS = 150.0  # gRPC waits up to two minutes before the next attempt
FAILED = "sum(otelcol_exporter_enqueue_failed_spans)"
ALERT = 'count(ALERTS{alertname="TelemetryLost",alertstate="firing",signal="spans"})'


def drill(run: Run) -> Figures:
    with run.changed("otel-collector", {"TRACE_QUEUE_SIZE": str(QUEUE_ITEMS)}):
        return fill(run)


def fill(run: Run, seconds: float = 60.0) -> Figures:
    """Keep the trace backend away under load until the queue holds no more, whatever it is."""
    with run.load() as intake:
        began = time.time()
        with run.without(run.stack.traces):
            time.sleep(seconds)
            poll_until(
                lambda: any(run.site.prometheus.values(FAILED)), "drops that are counted", 120
            )
        ended = time.time()
        poll_until(lambda: any(run.site.prometheus.values(ALERT)), "the alert TelemetryLost", 180)
    (counted,) = run.site.prometheus.values(FAILED)
    figures = run.reckon(intake, patience=60)
    missing = sorted(one.at for one in figures.spans.missing)
    if not missing:
        run.must(False, "nothing was dropped: nothing is proved of how it is counted")
        return figures
    run.must(counted >= len(missing), f"{len(missing)} spans dropped, and {counted:.0f} counted")
    # Those that were queued first are kept, and the queue has room again once they are sent.
    first, last = missing[0] - began, missing[-1] - ended
    run.must(first > ROOM_SECONDS, f"not the newest were dropped, but from {first:.0f} s on")
    run.must(last < CONNECTS_AGAIN_SECONDS, f"dropped still, {last:.0f} s after the store was well")
    run.note(
        f"{len(missing)} spans dropped, {counted:.0f} counted (again for each further attempt), the"
        f" first {first:.0f} s after the store was gone, the last {last:.0f} s after it was back;"
        " the alert TelemetryLost fired"
    )
    return figures
