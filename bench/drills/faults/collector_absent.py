"""No Collector for a whole run: services are as fast as with one, and count the spans that their
full queues drop."""

import statistics
import time
from collections import Counter

from ..accounting import follow
from ..promises import Figures
from ..samples import body, message
from ..site import Run
from .collector_full import OVERLOOKED

BACKLOG = 3000  # orders
WARM_UP = 0.1  # share of a backlog to ignore, while the consumer starts
LEAST_RATIO = 0.9
OVERFLOW = 26_000  # orders: three spans each in payments, whose queue holds 65,536
MOST_MEMORY = 0.9  # of its limit
COUNTED_SECONDS = 60.0  # services export their counters every 15 s
MOST_OVERCOUNTED = 0.02  # spans that the comparison does not expect
COUNTED = (
    "sum({__name__=~'otel_sdk_(processor_span_processed|exporter_span_exported)_total',"
    "service_name='payments',error_type!=''}) or vector(0)"
)


def drill(run: Run) -> Figures:
    run.mark()
    rates: dict[bool, list[float]] = {True: [], False: []}
    for there in (True, False, False, True, True, False, False, True):
        here = run.stack.replicas("otel-collector")[0]["State"]["Running"]
        if here and not there:
            run.stop("otel-collector")
        if there and not here:
            run.start("otel-collector")
            time.sleep(20)  # so that queued spans are sent before the next measurement
        rates[there].append(throughput(run))
    if not run.stack.replicas("otel-collector")[0]["State"]["Running"]:
        run.start("otel-collector")
    # Ratios of neighbours, because the machine's speed varies over time.
    ratios = [without / by for without, by in zip(rates[False], rates[True], strict=True)]
    run.note(
        f"{statistics.median(rates[False]):.0f} orders/s without,"
        f" {statistics.median(rates[True]):.0f} with it; ratio {statistics.median(ratios):.2f}"
        f" ({min(ratios):.2f} to {max(ratios):.2f})"
    )
    run.must(statistics.median(ratios) >= LEAST_RATIO, f"that is less than {LEAST_RATIO}")
    unread = run.site.wait_until_drained()
    handled = follow((), run.site.channels.read(run.since), unread)
    run.note(
        f"{handled.handled} orders timed, {len(handled.lost)} lost, {len(handled.duplicates)} twice"
    )
    run.must(not (handled.lost or handled.duplicates or handled.unread), "none may be")
    return overflow(run)


def overflow(run: Run) -> Figures:
    """Handle more messages than the queue of spans holds; the count of drops must be right."""
    run.mark()  # services stopped without a Collector before have lost their queues
    before = run.stack.replicas("payments")[0]
    run.injected = 0
    run.stop("otel-collector")
    run.inject([message("orders.placed", body("orders.placed")) for _ in range(OVERFLOW)])
    run.site.wait_until_drained()
    memory = run.stack.memory()["payments"] / before["HostConfig"]["Memory"]
    run.start("otel-collector")
    figures = run.reckon(patience=60)
    missing = Counter(one.service for one in figures.spans.missing)["payments"]
    run.must(missing, "nothing was dropped, so the count was not tested")
    until = time.monotonic() + COUNTED_SECONDS
    while (counted := run.site.prometheus.values(COUNTED)[0]) < missing:
        if time.monotonic() > until:
            break
        time.sleep(5)
    after = run.stack.replicas("payments")[0]
    run.must(after["RestartCount"] == before["RestartCount"], "payments was restarted")
    run.must(
        (1 - OVERLOOKED) * missing <= counted <= (1 + MOST_OVERCOUNTED) * missing,
        f"{missing} dropped, {counted:.0f} counted",
    )
    run.must(memory <= MOST_MEMORY, f"memory at {memory:.0%} of its limit")
    run.note(
        f"after them {missing} spans dropped, {counted:.0f} counted, memory at {memory:.0%} of its"
        " limit"
    )
    return figures


def throughput(run: Run) -> float:
    """Return the orders per second that payments handles, by the timestamps of its results."""
    run.stop("payments")
    since = run.site.channels.ends()
    run.inject([message("orders.placed", body("orders.placed")) for _ in range(BACKLOG)])
    run.start("payments")
    run.site.wait_until_drained()
    times = sorted(
        record.at
        for record in run.site.channels.read(since)
        if record.channel == "payments.authorized"
    )[int(BACKLOG * WARM_UP) :]
    return (len(times) - 1) / (times[-1] - times[0])
