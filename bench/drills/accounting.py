"""Finds losses by comparing ids: of orders with records, and of records with spans."""

import base64
import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from e2e.apis import Span

from .flow import BATCHES, CONSUMERS, DEAD_LETTERS, ENDS, INJECTED, PRODUCERS, STARTS, group

TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")

Partition = tuple[str, str]
"""A channel and one of its partitions, which is empty if the broker has none."""
Unread = Mapping[Partition, int]
"""Number of messages that a consumer has not acknowledged: the last of their partition."""
Position = tuple[str, str]
"""A channel and the id of a message in it. The id is opaque: each broker has its own."""
Header = tuple[str, bytes | None]
Headers = Sequence[Header]
"""As the broker has them: ordered, with repeated names, values of any bytes or null."""

PASSING = {"traceparent", "tracestate", "baggage", "flow-started"}
"""Headers of one publication, which its dead letter does not keep."""


@dataclass(frozen=True)
class Placed:
    """An order that was acknowledged to its sender."""

    order_id: str
    trace_id: str
    kind: str
    """How the order should end: good, declined or failing."""
    at: float
    """Unix seconds of the acknowledgement."""


@dataclass(frozen=True)
class Record:
    """A message in its channel."""

    channel: str
    id: str
    """As spans and dead letters have it; only these compare it."""
    at: float
    """Unix seconds, by its sender's clock."""
    value: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    """As text; of a repeated name the last value."""
    key: bytes | None = None
    exact: Headers = ()
    partition: str = ""

    @cached_property
    def body(self) -> Any:
        try:
            return json.loads(self.value)
        except (ValueError, RecursionError):
            return None

    @property
    def order_id(self) -> str:
        """Empty if the message has no order id, or cannot be read."""
        return str(self.body.get("order_id", "")) if isinstance(self.body, dict) else ""

    @property
    def sender(self) -> tuple[str, str] | None:
        """Trace and span ids of a valid traceparent header, else None."""
        found = TRACEPARENT.fullmatch(self.headers.get("traceparent", ""))
        return (found[1], found[2]) if found and int(found[1], 16) and int(found[2], 16) else None

    @property
    def position(self) -> Position:
        return self.channel, self.id

    @property
    def origin(self) -> Position:
        """The position of a dead letter's message, by its headers; empty without them."""
        return (
            self.headers.get("dead-letter.channel", ""),
            self.headers.get("dead-letter.message-id", ""),
        )

    @property
    def kept(self) -> Headers:
        """The message's headers, by its dead letter."""
        if exact := self.headers.get("dead-letter.headers"):
            return [(name, _bytes(value)) for name, value in json.loads(exact)]
        return [
            (name, value)
            for name, value in self.exact
            if not name.startswith("dead-letter.") and (value or name != "content-type")
        ]

    @property
    def producer(self) -> str:
        """The service that sent it; empty for a message of a drill."""
        if INJECTED in self.headers:
            return ""
        if self.channel == DEAD_LETTERS:
            return CONSUMERS.get(self.headers.get("dead-letter.channel", ""), "")
        return PRODUCERS.get(self.channel, "")


def changed(dead_letter: Record, message: Record) -> list[str]:
    """Return the parts of a message that its dead letter does not hold byte for byte."""
    parts = {
        "key": (dead_letter.key, message.key),
        "body": (dead_letter.value, message.value),
        "headers": (_lasting(dead_letter.kept), _lasting(message.exact)),
    }
    return [name for name, (there, given) in parts.items() if there != given]


def _lasting(headers: Headers) -> Headers:
    return [(name, value) for name, value in headers if name not in PASSING]


def _bytes(value: str | dict[str, str] | None) -> bytes | None:
    if isinstance(value, dict):
        return base64.b64decode(value["base64"])
    return None if value is None else value.encode()


@dataclass(frozen=True)
class Missing:
    """An expected span that the store does not have."""

    service: str
    what: str
    trace_id: str
    at: float
    """About when it ended, in Unix seconds."""

    def __str__(self) -> str:
        return f"{self.service}: {self.what} (trace {self.trace_id})"


@dataclass(frozen=True)
class Duplicate:
    """A second record of an order in the same channel."""

    first: Record
    again: Record

    def __str__(self) -> str:
        first, again = self.first, self.again
        return f"order {first.order_id} in {first.channel} at {first.id} and {again.id}"


@dataclass(frozen=True)
class Messages:
    """The results of orders, with ids and positions to look them up."""

    acknowledged: int
    handled: int
    """Orders that reached any end."""
    dead_letters: int
    lost: list[str]
    duplicates: list[Duplicate]
    """All records after the first of an order in a channel."""
    astray: list[str]
    """Orders that reached an end of another kind."""
    unread: dict[str, int]
    """Messages that a consumer group has not acknowledged, by group."""


@dataclass(frozen=True)
class Spans:
    """Which spans of handled messages arrived."""

    expected: int
    missing: list[Missing]


def follow(orders: Sequence[Placed], records: Iterable[Record], unread: Unread) -> Messages:
    """Follow each order from its acknowledgement to its end.

    Args:
        orders: The acknowledged orders. Others in the channels must reach an end too.
        records: Of all channels, from before the first order was placed.
        unread: What no consumer has acknowledged.
    """
    ordered: dict[str, dict[str, Record]] = defaultdict(dict)
    duplicates: list[Duplicate] = []
    dead_letters = 0
    for record in sorted(records, key=lambda record: record.at):
        dead_letters += record.channel == DEAD_LETTERS
        if not record.order_id:
            continue
        first = ordered[record.order_id].setdefault(record.channel, record)
        if first is not record:
            duplicates.append(Duplicate(first, record))
    kinds = {order.order_id: order.kind for order in orders}
    placed = {
        order for order, channels in ordered.items() if any(one in channels for one in STARTS)
    }
    reached = {order: ENDS.keys() & channels.keys() for order, channels in ordered.items()}
    behind: Counter[str] = Counter()
    for (channel, _), count in unread.items():
        behind[group(channel)] += count
    return Messages(
        acknowledged=len(orders),
        handled=sum(bool(reached[order]) for order in placed),
        dead_letters=dead_letters,
        lost=sorted(
            {order for order in placed if not reached[order]}
            | {order for order in kinds if order not in placed}
        ),
        duplicates=duplicates,
        astray=sorted(
            order
            for order, kind in kinds.items()
            if {ENDS[channel] for channel in reached.get(order, ())} - {kind}
        ),
        unread=dict(+behind),
    )


class Store:
    """Spans read from a trace store, indexed by what a record knows of them.

    Args:
        id_of: Returns the id of the message that a span handled, by its attributes.
    """

    def __init__(
        self, id_of: Callable[[Mapping[str, Any]], str], spans: Iterable[Span] = ()
    ) -> None:
        self._id_of = id_of
        self._spans: dict[tuple[str, str], Span] = {}
        self._children: dict[tuple[str, str], list[Span]] = defaultdict(list)
        self._servers: dict[str, list[Span]] = defaultdict(list)
        self._linked: dict[tuple[str, str], list[Span]] = defaultdict(list)
        self._positions: dict[Position, list[Span]] = defaultdict(list)
        self.add(spans)

    def __iter__(self) -> Iterator[Span]:
        return iter(self._spans.values())

    def add(self, spans: Iterable[Span]) -> None:
        """Add spans; of a known span, add only new links."""
        for span in spans:
            if known := self._spans.get((span.trace_id, span.span_id)):
                for link in set(span.links) - set(known.links):
                    self._linked[link].append(known)
                continue
            self._spans[span.trace_id, span.span_id] = span
            if span.parent_id:
                self._children[span.trace_id, span.parent_id].append(span)
            if span.kind == "SERVER":
                self._servers[span.trace_id].append(span)
            for link in span.links:
                self._linked[link].append(span)
            channel = str(span.attributes.get("messaging.destination.template", ""))
            if channel and (identity := self._id_of(span.attributes)):
                self._positions[channel, identity].append(span)

    def has(self, sender: tuple[str, str]) -> bool:
        return sender in self._spans

    def above(self, sender: tuple[str, str]) -> Span | None:
        """Return the span that the sending one is part of."""
        span = self._spans.get(sender)
        return self._spans.get((span.trace_id, span.parent_id)) if span else None

    def at(self, position: Position) -> list[Span]:
        """Return the spans that handled the record at this position."""
        return self._positions.get(position, [])

    def linked(self, sender: tuple[str, str]) -> list[Span]:
        return self._linked.get(sender, [])

    def server(self, trace_id: str) -> list[Span]:
        return self._servers.get(trace_id, [])

    def children(self, span: Span, name: str) -> list[Span]:
        children = self._children.get((span.trace_id, span.span_id), [])
        return [child for child in children if child.name == name]

    def below(self, span: Span) -> list[Span]:
        """Return all descendants of a span."""
        found = list(self._children.get((span.trace_id, span.span_id), []))
        for one in found:
            found += self._children.get((one.trace_id, one.span_id), [])
        return found

    def processes(self, record: Record) -> list[Span]:
        """Return the spans of the record's handling: one for each time that it was delivered."""
        service = CONSUMERS[record.channel]
        if record.channel in BATCHES:
            found = self._linked.get(record.sender, []) if record.sender else []
        elif record.sender:
            found = self._children.get(record.sender, [])
        else:  # its trace begins with its handling
            found = self._positions.get(record.position, [])
        return [span for span in found if span.service == service and span.kind == "CONSUMER"]


def look_up(
    orders: Sequence[Placed], records: Sequence[Record], unread: Unread, store: Store
) -> Spans:
    """Find the spans of everything that was handled.

    Expected are, for each order the span of its request; for each record the one that sent it and,
    unless it is unread, the one that handled it, with what the example does inside: the call to the
    card's provider and each further attempt.
    """
    results: dict[tuple[str, str], float] = {}
    traces: dict[tuple[str, str], str] = {}
    outcomes = defaultdict(set)
    for record in records:
        key = (record.order_id, record.producer)
        results[key] = max(results.get(key, 0.0), record.at)
        if record.sender:
            traces[key] = record.sender[0]
        outcomes[record.order_id].add(record.channel)
    positions = {record.position: record for record in records}
    unhandled = _last(records, unread)

    expected = 0
    missing: list[Missing] = []

    def expect(found: int, wanted: int, service: str, what: str, trace: str, at: float) -> None:
        nonlocal expected
        expected += wanted
        missing.extend([Missing(service, what, trace, at)] * (wanted - min(found, wanted)))

    for order in orders:
        trace = order.trace_id
        expect(len(store.server(trace)), 1, "orders", "POST /orders", trace, order.at)
    for record in records:
        trace = record.sender[0] if record.sender else ""
        if record.producer and record.channel in {*PRODUCERS, DEAD_LETTERS}:
            sent = bool(record.sender and store.has(record.sender))
            expect(sent, 1, record.producer, f"send {record.channel}", trace, record.at)
        if record.channel == DEAD_LETTERS and record.producer and record.sender:
            _expect_attempts(record, positions, store, expect)
        if record.channel not in CONSUMERS:
            continue
        if record.position in unhandled:
            continue  # counted as unread
        if record.channel in BATCHES and not record.sender:
            continue  # nothing to link to
        service = CONSUMERS[record.channel]
        at = results.get((record.order_id, service), record.at)
        # Without a trace in the message, use that of its results.
        trace = trace or traces.get((record.order_id, service), "")
        processes = store.processes(record)
        expect(len(processes), 1, service, f"process {record.channel}", trace, at)
        if record.channel == "orders.placed" and "payments" in {
            PRODUCERS.get(channel) for channel in outcomes[record.order_id]
        }:
            calls = sum(len(store.children(process, "authorize card")) for process in processes)
            expect(calls, 1, service, "authorize card", trace, at)
    return Spans(expected, missing)


def _last(records: Sequence[Record], counts: Unread) -> set[Position]:
    """Return the positions of the last so many records of each partition."""
    left = dict(counts)
    found: set[Position] = set()
    for record in reversed(records):
        partition = record.channel, record.partition
        if left.get(partition, 0) > 0:
            left[partition] -= 1
            found.add(record.position)
    return found


def _expect_attempts(
    dead_letter: Record, records: Mapping[Position, Record], store: Store, expect: Any
) -> None:
    """Expect a span for each attempt after the first."""
    channel, identity = dead_letter.origin
    again = int(dead_letter.headers.get("dead-letter.attempts", "1")) - 1
    if channel in BATCHES or again < 1:
        return
    unknown = Record(channel, identity, dead_letter.at, dead_letter.value)
    processes = store.processes(records.get(dead_letter.origin, unknown))
    attempts = sum(len(store.children(process, f"retry {channel}")) for process in processes)
    trace = dead_letter.sender[0] if dead_letter.sender else ""
    expect(attempts, again, dead_letter.producer, f"retry {channel}", trace, dead_letter.at)
