"""A rebalance storm: members that join a consumer group and leave it again, under load."""

import threading
import time
from contextlib import closing

from confluent_kafka import Consumer

from ..brokers.kafka import QUIET, InKafka
from ..flow import group
from ..promises import Figures
from ..site import Run

CHANNEL = "orders.placed"
MEMBERS = 2  # at a time


def drill(run: Run) -> Figures:
    joined = 0
    kafka = run.site.channels
    assert isinstance(kafka, InKafka)
    (before,) = run.stack.replicas("payments")
    ends = threading.Event()
    lock = threading.Lock()

    def member() -> None:
        nonlocal joined
        while not ends.is_set():
            join(kafka.address)
            with lock:
                joined += 1

    with run.load() as intake:
        began = time.time()
        threads = [threading.Thread(target=member, daemon=True) for _ in range(MEMBERS)]
        for thread in threads:
            thread.start()
        time.sleep(run.seconds(60, 30))
        ends.set()
        for thread in threads:
            thread.join()
        run.interrupted("payments", began)
        calm = time.monotonic()
        time.sleep(10)
    run.site.wait_until_drained()
    seconds = time.monotonic() - calm
    run.note(f"{joined} members came and went; all handled {seconds:.0f} s after the last")
    (after,) = run.stack.replicas("payments")
    run.must(after["RestartCount"] == before["RestartCount"], "payments was restarted")
    return run.reckon(intake)


def join(address: str, seconds: float = 3.0) -> None:
    """Join the group for some seconds, handle and commit nothing, and leave."""
    options = {
        "bootstrap.servers": address,
        "group.id": group(CHANNEL),
        "enable.auto.commit": False,
        "partition.assignment.strategy": "roundrobin",  # aiokafka has it too
        "session.timeout.ms": 6000,
        **QUIET,
    }
    with closing(Consumer(options)) as consumer:
        consumer.subscribe([CHANNEL])
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            consumer.poll(0.2)
