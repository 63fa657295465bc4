"""Messages whose senders' clocks are half an hour slow or fast."""

import time

from e2e.poll import poll_until

from ..promises import Figures
from ..samples import body, message
from ..site import Run

CHANNEL = "orders.placed"
SKEWS = {"slow": -1800.0, "fast": 1800.0}  # the broker accepts at most an hour in the future
EACH = 50
# Durations on the boards. A negative one would shrink a sum, which looks like a restart.
SUMS = (
    "messaging_receive_delay_seconds_sum",
    "messaging_flow_duration_seconds_sum",
    "traces_span_metrics_duration_seconds_sum",
    "traces_service_graph_request_server_seconds_sum",
)
SCRAPES_SECONDS = 45


def drill(run: Run) -> Figures:
    run.mark()
    time.sleep(SCRAPES_SECONDS)  # so that the queried window has no older samples
    began = time.time()
    for skew in SKEWS.values():
        at = time.time() + skew
        run.inject([message(CHANNEL, body(CHANNEL), at=at) for _ in range(EACH)])
    figures = run.reckon()
    negative = [span for span in run.store if span.end_ns < span.start_ns]
    run.must(not negative, f"{len(negative)} spans end before they start")
    time.sleep(SCRAPES_SECONDS)
    window = f"{int(time.time() - began)}s"
    for metric in SUMS:
        found = poll_until(
            lambda name=metric: run.site.prometheus.values(f"min(min_over_time({name}[{window}]))"),  # type: ignore[misc]
            metric,
        )
        shrunk = run.site.prometheus.values(f"sum(resets({metric}[{window}]))")
        run.must(found[0] >= 0, f"{metric} is {found[0]}")
        run.must(shrunk in ([], [0.0]), f"{metric} shrank {shrunk} times")
    run.note(f"{EACH} each, half an hour {' and '.join(SKEWS)}")
    return figures
