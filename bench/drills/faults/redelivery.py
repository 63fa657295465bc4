"""Duplicate messages, and messages out of order."""

import random
import re
from collections import Counter, defaultdict

from e2e.stack import docker

from ..promises import Figures
from ..samples import body, message
from ..site import Run

COUNT = 100
# Ids that must be the same for every delivery of an order.
RESULTS = {"payments.authorized": "authorization_id", "shipments.dispatched": "tracking_id"}


def drill(run: Run) -> Figures:
    run.mark()
    orders = [body("orders.placed") for _ in range(COUNT)]
    twice = [message("orders.placed", one) for one in orders * 2]
    random.shuffle(twice)
    run.inject(twice)
    figures = run.reckon()
    results: dict[tuple[str, str], set[str]] = defaultdict(set)
    for record in run.records:
        if record.channel in RESULTS:
            results[record.channel, record.order_id].add(record.body[RESULTS[record.channel]])
    for channel, identity in RESULTS.items():
        differing = [one for one in orders if len(results[channel, one["order_id"]]) != 1]
        run.must(not differing, f"{len(differing)} of {COUNT} orders have more than one {identity}")
    log = docker("logs", run.stack.replicas("notifications")[0]["Id"], errors=True)
    notified = Counter(re.findall(r"Customer of order (\S+) notified", log))
    often = [one for one in orders if notified[one["order_id"]] != 1]
    run.must(not often, f"{len(often)} of {COUNT} customers were not notified once")
    run.note(f"{COUNT} orders, each twice, shuffled; each customer notified once")
    return figures
