"""Finds losses by comparing ids: of orders with records, and of records with spans."""

import base64
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from e2e.apis import Span

from .flow import BATCHES, CONSUMERS, DEAD_LETTERS, ENDS, INJECTED, PRODUCERS, STARTS, group

TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")

Partition = tuple[str, int]
"""A topic and one of its partitions."""
Offsets = Mapping[Partition, int]
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
    """A message in its topic."""

    topic: str
    partition: int
    offset: int
    at: float
    """Unix seconds, by its sender's clock."""
    value: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    """As text; of a repeated name the last value."""
    key: bytes | None = None
    exact: Headers = ()

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
    def position(self) -> tuple[str, int, int]:
        return self.topic, self.partition, self.offset

    @property
    def origin(self) -> tuple[str, int, int]:
        """The position of a dead letter's message, by its headers; empty without them."""
        headers = self.headers
        try:
            partition, offset = map(int, headers["dead-letter.message-id"].split("/"))
            return headers["dead-letter.channel"], partition, offset
        except (KeyError, ValueError):
            return "", 0, 0

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
        if self.topic == DEAD_LETTERS:
            return CONSUMERS.get(self.headers.get("dead-letter.channel", ""), "")
        return PRODUCERS.get(self.topic, "")


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
    """A second record of an order in the same topic."""

    first: Record
    again: Record

    def __str__(self) -> str:
        topic, *positions = self.first.topic, *self.first.position[1:], *self.again.position[1:]
        return "order {} in {} at {}/{} and {}/{}".format(self.first.order_id, topic, *positions)


@dataclass(frozen=True)
class Messages:
    """The results of orders, with ids and positions to look them up."""

    acknowledged: int
    handled: int
    """Orders that reached any end."""
    dead_letters: int
    lost: list[str]
    duplicates: list[Duplicate]
    """All records after the first of an order in a topic."""
    astray: list[str]
    """Orders that reached an end of another kind."""
    unread: dict[str, int]
    """Records that a consumer group has not committed, by group."""


@dataclass(frozen=True)
class Spans:
    """Which spans of handled messages arrived."""

    expected: int
    missing: list[Missing]


def follow(
    orders: Sequence[Placed], records: Iterable[Record], committed: Offsets, ends: Offsets
) -> Messages:
    """Follow each order from its acknowledgement to its end.

    Args:
        orders: The acknowledged orders. Others in the topics must reach an end too.
        records: Of all topics, from before the first order was placed.
        committed: Of each consumed partition: the next offset that its group will read.
        ends: Of each partition: the offset after the last record.
    """
    ordered: dict[str, dict[str, Record]] = defaultdict(dict)
    duplicates: list[Duplicate] = []
    dead_letters = 0
    for record in sorted(records, key=lambda record: record.at):
        dead_letters += record.topic == DEAD_LETTERS
        if not record.order_id:
            continue
        first = ordered[record.order_id].setdefault(record.topic, record)
        if first is not record:
            duplicates.append(Duplicate(first, record))
    kinds = {order.order_id: order.kind for order in orders}
    placed = {order for order, topics in ordered.items() if any(one in topics for one in STARTS)}
    reached = {order: ENDS.keys() & topics.keys() for order, topics in ordered.items()}
    unread: Counter[str] = Counter()
    for (topic, partition), end in ends.items():
        if topic in CONSUMERS and committed.get((topic, partition), 0) < end:
            unread[group(topic)] += end - committed.get((topic, partition), 0)
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
            if {ENDS[topic] for topic in reached.get(order, ())} - {kind}
        ),
        unread=dict(unread),
    )


class Store:
    """Spans read from a trace store, indexed by what a record knows of them."""

    def __init__(self, spans: Iterable[Span] = ()) -> None:
        self._spans: dict[tuple[str, str], Span] = {}
        self._children: dict[tuple[str, str], list[Span]] = defaultdict(list)
        self._servers: dict[str, list[Span]] = defaultdict(list)
        self._linked: dict[tuple[str, str], list[Span]] = defaultdict(list)
        self._positions: dict[tuple[str, int, int], list[Span]] = defaultdict(list)
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
            position = _position(span)
            if position:
                self._positions[position].append(span)

    def has(self, sender: tuple[str, str]) -> bool:
        return sender in self._spans

    def above(self, sender: tuple[str, str]) -> Span | None:
        """Return the span that the sending one is part of."""
        span = self._spans.get(sender)
        return self._spans.get((span.trace_id, span.parent_id)) if span else None

    def at(self, position: tuple[str, int, int]) -> list[Span]:
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
        service = CONSUMERS[record.topic]
        if record.topic in BATCHES:
            found = self._linked.get(record.sender, []) if record.sender else []
        elif record.sender:
            found = self._children.get(record.sender, [])
        else:  # its trace begins with its handling
            found = self._positions.get(record.position, [])
        return [span for span in found if span.service == service and span.kind == "CONSUMER"]


def _position(span: Span) -> tuple[str, int, int] | None:
    attributes = span.attributes
    try:
        return (
            str(attributes["messaging.destination.template"]),
            int(attributes["messaging.destination.partition.id"]),
            int(attributes["messaging.kafka.offset"]),
        )
    except KeyError:
        return None


def look_up(
    orders: Sequence[Placed], records: Sequence[Record], committed: Offsets, store: Store
) -> Spans:
    """Find the spans of everything that was handled.

    Expected are, for each order the span of its request; for each record the one that sent it and,
    when it is below a committed offset, the one that handled it, with what the example does inside:
    the call to the card's provider and each further attempt.
    """
    results: dict[tuple[str, str], float] = {}
    traces: dict[tuple[str, str], str] = {}
    outcomes = defaultdict(set)
    for record in records:
        key = (record.order_id, record.producer)
        results[key] = max(results.get(key, 0.0), record.at)
        if record.sender:
            traces[key] = record.sender[0]
        outcomes[record.order_id].add(record.topic)

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
        if record.producer and record.topic in {*PRODUCERS, DEAD_LETTERS}:
            sent = bool(record.sender and store.has(record.sender))
            expect(sent, 1, record.producer, f"send {record.topic}", trace, record.at)
        if record.topic == DEAD_LETTERS and record.producer and record.sender:
            _expect_attempts(record, store, expect)
        if record.topic not in CONSUMERS:
            continue
        if record.offset >= committed.get((record.topic, record.partition), 0):
            continue  # not handled, and counted as unread
        if record.topic in BATCHES and not record.sender:
            continue  # nothing to link to
        service = CONSUMERS[record.topic]
        at = results.get((record.order_id, service), record.at)
        # Without a trace in the message, use that of its results.
        trace = trace or traces.get((record.order_id, service), "")
        processes = store.processes(record)
        expect(len(processes), 1, service, f"process {record.topic}", trace, at)
        if record.topic == "orders.placed" and "payments" in {
            PRODUCERS.get(topic) for topic in outcomes[record.order_id]
        }:
            calls = sum(len(store.children(process, "authorize card")) for process in processes)
            expect(calls, 1, service, "authorize card", trace, at)
    return Spans(expected, missing)


def _expect_attempts(dead_letter: Record, store: Store, expect: Any) -> None:
    """Expect a span for each attempt after the first."""
    topic, partition, offset = dead_letter.origin
    again = int(dead_letter.headers.get("dead-letter.attempts", "1")) - 1
    if topic in BATCHES or again < 1:
        return
    origin = Record(topic, partition, offset, dead_letter.at, dead_letter.value)
    processes = store.processes(origin)
    attempts = sum(len(store.children(process, f"retry {topic}")) for process in processes)
    trace = dead_letter.sender[0] if dead_letter.sender else ""
    expect(attempts, again, dead_letter.producer, f"retry {topic}", trace, dead_letter.at)
