"""The trace backend, Loki and Prometheus down for five minutes, under load."""

import time

from e2e.apis import Loki
from e2e.poll import poll_until

from ..flow import BATCHES
from ..promises import Figures
from ..site import Run

SECONDS = 300, 30
"""In a full run, and in a quick one."""


def drill(run: Run) -> Figures:
    with run.load() as intake:
        began = time.time()
        with run.without(run.stack.traces, "loki", "prometheus"):
            time.sleep(run.seconds(*SECONDS))
        run.note(f"down for {time.time() - began:.0f} s")
    figures = run.reckon(intake, patience=240)
    look_up_logs(run)
    return figures


def look_up_logs(run: Run) -> None:
    """Check that Loki has a log record of each order whose customer was notified."""
    ends = {record.order_id for record in run.records if record.channel in BATCHES}
    query = 'sum(count_over_time({service_name="notifications"} |= "Customer of order" [%ds]))'
    loki = Loki(run.stack.url("LOKI_PORT"))
    found = 0.0

    def complete() -> bool:
        nonlocal found
        found = loki.value(query % (time.time() - run.began))
        return found == len(ends)

    try:
        poll_until(complete, "all log records", 120)
    except AssertionError:
        run.must(False, f"{found:.0f} log records of {len(ends)}")
    run.note(f"{found:.0f} log records of {len(ends)}")
