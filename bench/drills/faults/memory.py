"""Hundreds of large messages that fail, one after the other: the service frees each one, and needs
only the memory of a few of them."""

from collections.abc import Sequence
from dataclasses import replace

from ..accounting import Record
from ..flow import DEAD_LETTERS
from ..promises import Figures
from ..samples import message
from ..site import Run
from .soak import Memory

SERVICE = "shipping"
CHANNEL = "payments.authorized"
MESSAGES = 400
BODY = b'{"what": "%s"}' % (b"x" * 900_000)  # no payment: it fails at once
PAGE = 50  # messages to send and read at a time
MOST_MEMORY = 0.6  # of its limit, at any time
MOST_LEFT = 0.5  # of its limit, when all is over


def drill(run: Run) -> Figures:
    run.mark()
    (before,) = run.stack.replicas(SERVICE)
    limit = before["HostConfig"]["Memory"]
    records: list[Record] = []
    with Memory(run) as memory:
        for _ in range(0, MESSAGES, PAGE):
            records += page(run)
    left = run.stack.memory()[SERVICE]
    (after,) = run.stack.replicas(SERVICE)
    most = max(memory.samples[SERVICE], default=0)
    run.note(
        f"{SERVICE} at {most / 2**20:.0f} MiB at most, at {left / 2**20:.0f} MiB afterwards,"
        f" of {limit / 2**20:.0f} MiB"
    )
    run.must(after["RestartCount"] == before["RestartCount"], f"{SERVICE} was restarted")
    run.must(most, "no sample: nothing is proved")
    run.must(most <= MOST_MEMORY * limit, f"that is more than {MOST_MEMORY:.0%} of its limit")
    run.must(left <= MOST_LEFT * limit, f"{left / limit:.0%} of its limit is left in use")
    dead_letters = sum(record.channel == DEAD_LETTERS for record in records)
    run.must(dead_letters == MESSAGES, f"{dead_letters} dead letters of {MESSAGES} messages")
    messages, spans = run.account((), records=records)
    return Figures(
        run.injected, None, replace(messages, acknowledged=run.injected), spans,
        run.interruptions, run.notes, run.faults,
    )  # fmt: skip


def page(run: Run) -> Sequence[Record]:
    """Let some messages be handled; return all new records, without bodies."""
    since = run.site.channels.ends()
    run.inject([message(CHANNEL, BODY, partition=number % 3) for number in range(PAGE)])
    run.site.wait_until_drained()
    return [replace(record, value=b"") for record in run.site.channels.read(since)]
