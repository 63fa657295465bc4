"""Ten thousand inputs to the consumers, and requests made up by schemathesis to the HTTP side.

A third is valid, a third wrong in one field or header, a third rubbish. No process ends, no
partition stands still; each input is found, by its topic, partition and offset, either handled or
in the dead letters, once; each has a span.
"""

import socket
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import suppress

from e2e.poll import poll_until

from ..accounting import Record, Store, changed
from ..flow import BATCHES, DEAD_LETTERS
from ..fuzzed_http import fuzz
from ..inputs import Input, inputs
from ..promises import Figures
from ..site import Run
from ..topics import Message

BEHIND = {"orders.placed": ("payments.authorized", "payments.declined"),
          "payments.authorized": ("shipments.dispatched",)}  # fmt: skip
"""Where the handling of a message shows, by its order."""


def drill(run: Run) -> Figures:
    run.mark()
    seed = time.time_ns() if run.site.seed is None else run.site.seed
    run.note(f"seed {seed}")
    before = {name: one["RestartCount"] for name, one in run.stack.containers().items()}

    given = [*inputs(int(run.seconds(10_000, 1_500)), seed)]
    run.site.topics.send(
        [
            Message(one.topic, one.value, one.headers, str(number).encode())
            for number, one in enumerate(given)
        ]
    )
    placed, requests = fuzz(_url(run), int(run.seconds(2_000, 300)), seed, run.must)
    run.note(f"{requests} HTTP requests, {len(placed)} of them orders")

    run.site.wait_until_drained()  # what is then unread, a partition that stands still, is told
    after = {name: one["RestartCount"] for name, one in run.stack.containers().items()}
    run.must(after == before, f"a process ended: {after} restarts, before {before}")

    records = run.site.topics.read(run.since)
    _hold_to_their_fates(run, given, records)
    _hold_to_their_spans(run, given, records)
    ids = {order.order_id for order in placed}
    theirs = [record for record in records if record.order_id in ids]
    messages, spans = run.account(placed, records=theirs)
    return Figures(
        len(given) + requests, None, messages, spans, run.interruptions, run.notes, run.faults
    )


def _url(run: Run) -> str:
    """Where orders listens: of its range of ports Docker may have taken any."""
    first = run.stack.ports["ORDERS_PORT"]
    for port in range(first, first + run.site.replicas):
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 2):
            return f"http://127.0.0.1:{port}"
    raise OSError(f"nobody listens on 127.0.0.1:{first} or after it")


def _hold_to_their_fates(run: Run, given: Sequence[Input], records: Sequence[Record]) -> None:
    """Each input is handled, or one dead letter with its bytes, as it has to be."""
    letters: defaultdict[tuple[str, int, int], list[Record]] = defaultdict(list)
    behind: Counter[tuple[str, str]] = Counter()
    for record in records:
        if record.topic == DEAD_LETTERS:
            letters[record.origin].append(record)
        elif record.order_id:
            behind[record.topic, record.order_id] += 1
    broken: Counter[str] = Counter()
    fates: Counter[str] = Counter()
    for one, record in zip(given, _where(given, records), strict=True):
        dead = letters[record.position]
        shown = sum(behind[topic, one.order_id] for topic in BEHIND.get(one.topic, ()))
        handled = not dead and (shown == 1 or one.topic not in BEHIND)
        buried = [changed(letter, record) for letter in dead] == [[]]
        kept = {"handled": handled, "dead letter": buried, "either": handled or buried}[one.fate]
        fates["dead letters" if dead else "handled"] += 1
        if not kept:
            broken[f"{one.name} in {one.topic} (not {one.fate}), such as {record.position}"] += 1
    run.note(f"{len(given)} inputs: " + ", ".join(f"{n} {fate}" for fate, n in fates.items()))
    for what, count in broken.items():
        run.must(False, f"{count} x {what}")


def _hold_to_their_spans(run: Run, given: Sequence[Input], records: Sequence[Record]) -> None:
    """A span tells of each input; that of a dead letter has an error."""
    letters = [record for record in records if record.topic == DEAD_LETTERS and record.sender]
    store = Store()
    placed = _where(given, records)

    def complete() -> bool:
        run.read_spans(store, [(run.began, time.time())], placed)
        senders = (record.sender for record in (*untold(), *unfailed()))
        run.read_traces(store, (sender[0] for sender in senders if sender))
        return not untold() and not unfailed()

    def untold() -> list[Record]:
        return [
            record
            for record in placed
            if not (
                (record.topic in BATCHES and (not record.sender or store.linked(record.sender)))
                or store.at(record.position)
            )
        ]

    def unfailed() -> list[Record]:
        above = [(letter, store.above(letter.sender or ("", ""))) for letter in letters]
        return [letter for letter, span in above if span is None or span.status != "ERROR"]

    try:
        poll_until(complete, "a span of each input", 120)
    except AssertionError:
        for what, missing in (("no span of", untold()), ("no error on the span of", unfailed())):
            some = [record.position for record in missing[:1]]
            run.must(not missing, f"{what} {len(missing)} inputs, such as {some}")


def _where(given: Sequence[Input], records: Sequence[Record]) -> list[Record]:
    """Find each input's record, by the number that is its key."""
    found = {(record.topic, record.key): record for record in records}
    return [found[one.topic, str(number).encode()] for number, one in enumerate(given)]
