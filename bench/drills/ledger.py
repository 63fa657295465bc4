"""The ledger of a drill: what was placed, what became of it, and what interrupted it.

It needs the project's ports alone, wherever that runs.
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property

from e2e.apis import Prometheus, Span
from e2e.baked import Baked
from e2e.load import SHARES
from e2e.poll import poll_until
from e2e.stores import STORES
from e2e.stores import InTempo as InTempoApi

from .accounting import Messages, Placed, Position, Record, Spans, Store, Unread, follow, look_up
from .brokers import channels_of
from .channels import Channels, Ends, Message
from .flow import BATCHES
from .intake import Intake
from .promises import BROKER, Figures, Interruption
from .traces import InSink, InTempo, Traces
from .whole_traces import WholeTraces

HEALTHY_SECONDS = 180.0
REJOIN_SECONDS = 20.0  # Kafka's session timeout, and as long again to rejoin; others are faster
DRAINED_SECONDS = 600.0  # failing messages are retried for some time after the last order
MOST_BY_ID = 300  # traces in one pass
CUT_SHORT = "cut short"


@dataclass
class Ground:
    """A running project, and the options of all drills on it."""

    stack: Baked
    rate: float = 50.0
    """Orders per second."""
    quick: bool = False
    """Whether to shorten long outages."""
    replicas: int = 1
    """How many replicas of orders can have a port. The ports are consecutive. Docker assigns them
    at each start."""

    @cached_property
    def channels(self) -> Channels:
        return channels_of(self.stack)

    @property
    def prometheus(self) -> Prometheus:
        return Prometheus(self.stack.url("PROMETHEUS_PORT"))

    @property
    def traces(self) -> Traces:
        url = self.stack.url(self.stack.traces_port)
        store = STORES[self.stack.traces](url)
        if not isinstance(store, InTempoApi):
            return WholeTraces(store)
        return InSink(url) if self.stack.stand_in else InTempo(url)

    def wait_until_healthy(self, *services: str) -> None:
        """Wait until every container of these services, by default of all, is healthy."""
        wanted = services or [one for one in self.stack.services if one != "channels"]
        poll_until(
            lambda: all(map(self.stack.is_well, wanted)),
            f"{', '.join(wanted)} to be healthy",
            HEALTHY_SECONDS,
        )

    def wait_until_drained(self, deadline: float = DRAINED_SECONDS) -> Unread:
        """Wait until consumers have acknowledged everything; return what is unread at the deadline.

        It is reported later.
        """
        until = time.monotonic() + deadline
        while True:
            unread = self.channels.unread()
            if not any(unread.values()) or time.monotonic() > until:
                return unread
            time.sleep(1)


@dataclass
class Ledger:
    """One run of a drill: its interruptions and observations."""

    site: Ground
    since: Ends = field(default_factory=dict)
    began: float = 0.0
    interruptions: list[Interruption] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    injected: int = 0
    """Number of messages that the drill itself sent."""
    records: Sequence[Record] = ()
    """The records of the last comparison, for further checks."""
    store: Store = field(init=False)
    _looked_up: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.store = self.new_store()

    def new_store(self) -> Store:
        return Store(self.site.channels.id_of)

    def note(self, text: str) -> None:
        """Add an observation."""
        self.notes.append(text)

    def must(self, condition: object, text: str) -> None:
        """Record a broken promise if the condition is false."""
        if not condition:
            self.faults.append(text)

    def seconds(self, full: float, quick: float) -> float:
        """Return `full`, or `quick` in a quick run."""
        if self.site.quick and CUT_SHORT not in self.notes:
            self.note(CUT_SHORT)
        return quick if self.site.quick else full

    @contextmanager
    def load(self, rate: float | None = None) -> Iterator[Intake]:
        """Place orders at the site's rate or this one, undisturbed at its start and end."""
        self.mark()
        with self.intake(rate) as intake:
            time.sleep(5)
            yield intake
            time.sleep(3)

    def intake(self, rate: float | None = None, shares: Mapping[str, float] = SHARES) -> Intake:
        """Return an intake at the site's rate or this one, which is not started yet."""
        host, first = self.site.stack.address("ORDERS_PORT")
        ports = range(first, first + self.site.replicas)
        return Intake(ports, rate or self.site.rate, shares, host)

    def mark(self) -> None:
        """Begin the comparison here: earlier records belong to earlier drills."""
        self.since, self.began = self.site.channels.ends(), time.time()

    def inject(self, messages: Sequence[Message], compression: str = "none") -> list[Position]:
        """Send the drill's own messages; return their positions."""
        self.injected += len(messages)
        return self.site.channels.send(messages, compression)

    def reckon(self, intake: Intake | None = None, patience: float = 120.0) -> Figures:
        """Wait until everything is handled and exported, and compare.

        Args:
            intake: What placed orders, if anything did.
            patience: Seconds to wait for missing spans after the last arrival.
        """
        if intake and (said := intake.described()):
            self.note(said)
        self.site.wait_until_healthy()
        messages, spans = self.account(intake.placed if intake else (), patience)
        return Figures(
            sent=self.injected + (intake.sent if intake else 0),
            rate=intake.rate_reached if intake else None,
            messages=replace(messages, acknowledged=messages.acknowledged + self.injected),
            spans=spans, interruptions=self.interruptions, notes=self.notes, faults=self.faults,
        )  # fmt: skip

    def account(
        self,
        placed: Sequence[Placed],
        patience: float = 120.0,
        records: Sequence[Record] | None = None,
    ) -> tuple[Messages, Spans]:
        """Compare orders with records, and records with spans.

        Args:
            records: The relevant records; by default all since the drill began.
        """
        unread = self.site.wait_until_drained()
        if records is None:
            records = self.site.channels.read(self.since)
        messages = follow(placed, records, unread)
        return messages, self._spans(placed, records, unread, patience)

    def _spans(
        self, placed: Sequence[Placed], records: Sequence[Record], unread: Unread, patience: float
    ) -> Spans:
        store = self.new_store()
        self.store, self.records = store, records
        fewest, until = math.inf, math.inf
        windows = [(self.began, time.time())]
        while True:
            self.read_spans(store, windows, records)
            spans = look_up(placed, records, unread, store)
            self.read_traces(store, (missing.trace_id for missing in spans.missing))
            spans = look_up(placed, records, unread, store)
            if len(spans.missing) < fewest:
                fewest, until = len(spans.missing), time.monotonic() + patience
            if not spans.missing or time.monotonic() > until:
                return spans
            windows = _windows([missing.at for missing in spans.missing])
            time.sleep(2)

    def read_spans(
        self, store: Store, windows: Sequence[tuple[float, float]], records: Sequence[Record]
    ) -> None:
        """Add the spans of traces alive in these windows, and spans that link to these records."""
        traces = self.site.traces
        for window in windows:
            store.add(_insist(lambda one=window: traces.between(*one)))  # type: ignore[misc]
        unlinked = {
            record.sender: record.at
            for record in records
            if record.channel in BATCHES and record.sender and not store.linked(record.sender)
        }
        store.add(_insist(lambda: traces.linking(unlinked, time.time())))

    def read_traces(self, store: Store, trace_ids: Iterable[str]) -> None:
        """Add all spans of these traces, since a search may return only a part of them.

        Args:
            trace_ids: Each one once for each span that it lacks.
        """
        # First the traces that were read least often, since some may never be complete. Then those
        # that lack few spans, since a search returns only a part of a trace in two blocks.
        lacks = Counter(one for one in trace_ids if one)
        ids = sorted(lacks, key=lambda one: (self._looked_up[one], lacks[one]))[:MOST_BY_ID]
        self._looked_up.update(ids)
        store.add(_insist(lambda: self.site.traces.of(ids)))

    def interrupted(self, what: str, since: float, *, killed: bool = False) -> None:
        """Record an interruption from then until now.

        That of the broker lasts until its clients are attached again: before that, they cannot
        acknowledge what they handle, and it is redelivered.
        """
        broker = what == self.site.stack.broker
        until = time.time() + (REJOIN_SECONDS if broker else 0)
        self.interruptions.append(Interruption(BROKER if broker else what, since, until, killed))


def _insist(read: Callable[[], list[Span]]) -> list[Span]:
    """Read, with retries while the store does not answer."""
    return poll_until(lambda: [read()], "the trace store to answer")[0]


def _windows(times: Sequence[float]) -> list[tuple[float, float]]:
    """Return as few windows of time as cover all of these."""
    found: list[tuple[float, float]] = []
    for at in sorted(times):
        if found and at - 60 < found[-1][1]:
            found[-1] = found[-1][0], at + 60
        else:
            found.append((at - 60, at + 60))
    return found
