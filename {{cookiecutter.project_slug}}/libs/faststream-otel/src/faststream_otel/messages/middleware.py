"""FastStream's telemetry middleware, with true chains, fewer spans and less cost per message.

What differs from the stock `TelemetryMiddleware`, whatever the broker:

- A process span lasts from the receipt of a message until its results are published, and is
  current all that time. So every publishing style chains, FastStream's own log records carry the
  trace, and a message that cannot even be parsed has its error span.
- One span per operation, no extra `create` span: `send {destination}` is the parent of
  `process {destination}` (messaging semantic conventions 1.44, "Spans").
- A batch is processed in a trace of its own, with one link per message on the process span itself.
- OTEL_PROPAGATORS is honoured; the baggage of OpenTelemetry's API travels with FastStream's.
- A message of an unsampled trace skips the work that only a recorded span needs.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Any, Protocol

from faststream import BaseMiddleware, ContextRepo, PublishCommand
from faststream.exceptions import HandlerException, IgnoredException
from faststream.opentelemetry import Baggage
from opentelemetry import baggage, trace
from opentelemetry.context import Context, attach, detach, get_current
from opentelemetry.metrics import Meter, MeterProvider, NoOpMeterProvider, get_meter
from opentelemetry.semconv.attributes import server_attributes as server
from opentelemetry.semconv.attributes.error_attributes import ERROR_TYPE
from opentelemetry.trace import Link, Span, SpanKind
from opentelemetry.util.types import AttributeValue

from ..telemetry import semconv as messaging
from ..telemetry.correlation import remember
from ..telemetry.errors import error_type, fail
from ..telemetry.propagation import extract, inject
from ..telemetry.spans import note_failure
from ._faststream import current_subscriber
from .metrics import MessageMetrics

logger = logging.getLogger(__name__)

Attributes = dict[str, AttributeValue]
Headers = Mapping[str, str]


@dataclass(slots=True)  # frozen would double the cost of making one
class Received:
    """What the telemetry of a received message, or batch, needs to know of it.

    Attributes:
        destination: Topic, queue or subject that it came from.
        headers: Of each message; one for a single message.
        attributes: Computes the attributes of this message; called for recorded spans only.
        batch: Whether the subscriber consumes batches, also when this one holds one message.
        link_attributes: One mapping per message of a batch.
    """

    destination: str
    headers: Sequence[Headers]
    attributes: Callable[[], Attributes]
    batch: bool = False
    link_attributes: Sequence[Attributes] = field(default=())


class BrokerConventions(Protocol):
    """What is particular to one broker."""

    system: str
    """`messaging.system`."""

    def received(self, message: Any) -> Received:
        """Read the client library's own message."""

    def send_attributes(self, command: Any) -> Attributes:
        """Attributes of one publication beyond system, operation and destination."""

    def consumer_group(self, subscriber: Any) -> str | None:
        """`messaging.consumer.group.name` of a FastStream subscriber."""


class LinkedTelemetryMiddleware:
    """In place of FastStream's `TelemetryMiddleware`.

    Args:
        conventions: What is particular to the broker.
        tracer_provider: Default: the global one.
        meter_provider: Default: the global one. With a `NoOpMeterProvider` no metric is recorded.
        meter: Instead of a meter of the provider.
        include_messages_counters: Whether messages are counted, beside being timed.
        server_address: `server.address` of the broker: a name, or an address without brackets.
        server_port: `server.port` of the broker.
    """

    def __init__(
        self,
        *,
        conventions: BrokerConventions,
        tracer_provider: trace.TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        meter: Meter | None = None,
        include_messages_counters: bool = True,
        server_address: str | None = None,
        server_port: int | None = None,
    ) -> None:
        self.conventions = conventions
        self.tracer = trace.get_tracer(
            __name__, tracer_provider=tracer_provider, schema_url=messaging.SCHEMA_URL
        )
        self.metrics: MessageMetrics | None = None
        if meter or not isinstance(meter_provider, NoOpMeterProvider):
            meter = meter or get_meter(
                __name__, meter_provider=meter_provider, schema_url=messaging.SCHEMA_URL
            )
            self.metrics = MessageMetrics(meter, counters=include_messages_counters)
        self._server: Attributes = {}
        if server_address:
            self._server[server.SERVER_ADDRESS] = server_address
            if server_port:
                self._server[server.SERVER_PORT] = server_port
        self._links_dropped = False
        self._operations: dict[tuple[str, str, str | None], tuple[str, Attributes]] = {}

    def __call__(self, msg: Any | None, /, *, context: ContextRepo) -> "_TracedMessage":
        return _TracedMessage(msg, self, context)

    def operation(
        self, operation: str, destination: str, group: str | None = None
    ) -> tuple[str, Attributes]:
        """The span name and the attributes that all messages of an operation share; made once."""
        key = (operation, destination, group)
        if (known := self._operations.get(key)) is None:
            attributes: Attributes = {
                messaging.MESSAGING_SYSTEM: self.conventions.system,
                messaging.MESSAGING_OPERATION_NAME: operation,
                messaging.MESSAGING_OPERATION_TYPE: operation,
                messaging.MESSAGING_DESTINATION_NAME: destination,
                **self._server,
            }
            if group:
                attributes[messaging.MESSAGING_CONSUMER_GROUP_NAME] = group
            known = self._operations[key] = (f"{operation} {destination}", attributes)
        return known

    def note_links(self, span: Span, count: int) -> None:
        """Warn once that a batch had more links than the tracer provider leaves a span.

        The span itself has the number that is missing (`dropped_links_count` of OTLP).
        """
        dropped = getattr(span, "dropped_links", 0)  # only an SDK's recorded span has it
        if dropped and not self._links_dropped:
            self._links_dropped = True
            logger.warning(
                "The span of a batch with %d links keeps %d of them, the last ones: the limit is"
                " OTEL_SPAN_LINK_COUNT_LIMIT, or the tracer provider's max_links; raise it to what"
                " a batch may have. Logged once.",
                count, count - dropped,
            )  # fmt: skip


class _TracedMessage(BaseMiddleware[PublishCommand, Any]):
    """The telemetry of one received message, or of one publication outside of any."""

    __slots__ = (
        "_attributes",
        "_context_token",
        "_local_tokens",
        "_received",
        "_shared",
        "_span",
        "_started",
    )

    def __init__(
        self, msg: Any | None, shared: LinkedTelemetryMiddleware, context: ContextRepo
    ) -> None:
        super().__init__(msg, context=context)
        self._shared = shared
        self._span: Span | None = None

    async def on_receive(self) -> None:
        if self.msg is None:
            return
        try:
            self._start()
        except Exception as error:
            note_failure(error)

    def _start(self) -> None:
        shared, conventions = self._shared, self._shared.conventions
        received = self._received = conventions.received(self.msg)
        group = conventions.consumer_group(current_subscriber(self.context))
        name, attributes = self._attributes = shared.operation(
            "process", received.destination, group
        )

        # A context of its own: what is current in the consumer's task is not the message's cause.
        parent, links = Context(), None
        if received.batch:
            links = _links(received)
        else:
            parent = extract(received.headers[0])
        details: Attributes | None = None
        if _worth_details(parent):
            details = received.attributes()
            attributes = attributes | details
        span = shared.tracer.start_span(
            name, context=parent, kind=SpanKind.CONSUMER, attributes=attributes, links=links
        )
        if details is None and span.is_recording():  # a sampler that records in spite of the parent
            span.set_attributes(received.attributes())
        if links:
            shared.note_links(span, len(links))

        self._context_token = attach(trace.set_span_in_context(span, parent))
        self._local_tokens = (
            ("span", self.context.set_local("span", span)),
            ("baggage", self.context.set_local("baggage", _baggage(received))),
        )
        self._started = time.perf_counter()
        self._span = span

    async def after_processed(
        self,
        exc_type: type[BaseException] | None = None,
        exc_val: BaseException | None = None,
        exc_tb: TracebackType | None = None,
    ) -> bool | None:
        if (span := self._span) is None:
            return False
        error = _failure(exc_val)
        try:
            self._end(span, error)
        except Exception as raised:
            note_failure(raised)
        finally:
            detach(self._context_token)
            for name, token in self._local_tokens:
                self.context.reset_local(name, token)
            remember(partial(_while_busy, self.context, span))
        return False

    def _end(self, span: Span, error: BaseException | None) -> None:
        if error is not None:
            fail(span, error)
        span.end()
        failed = None if error is None else error_type(error)
        if metrics := self._shared.metrics:
            metrics.processed(
                time.perf_counter() - self._started,
                len(self._received.headers),
                _with_outcome(self._attributes[1], failed),
            )

    async def publish_scope(
        self, call_next: Callable[[PublishCommand], Any], cmd: PublishCommand
    ) -> Any:
        try:
            span, attributes = self._start_send(cmd)
        except Exception as error:
            note_failure(error)
            return await call_next(cmd)
        count = len(cmd.batch_bodies) or 1  # a tombstone has no body
        started = time.perf_counter()
        failed: str | None = None  # not the error, whose traceback has this frame: a cycle
        try:
            return await call_next(cmd)
        except BaseException as error:
            failed = error_type(error)
            fail(span, error)
            raise
        finally:
            seconds = time.perf_counter() - started
            try:
                span.end()
                if metrics := self._shared.metrics:
                    metrics.sent(seconds, count, _with_outcome(attributes, failed))
            except Exception as error:
                note_failure(error)

    def _start_send(self, cmd: PublishCommand) -> tuple[Span, Attributes]:
        """Start the span of a publication, and put it into the headers."""
        shared = self._shared
        name, attributes = shared.operation("send", cmd.destination)
        context = self._with_baggage(get_current())
        details: Attributes | None = None
        if _worth_details(context):
            details = self._send_details(cmd)
        span = shared.tracer.start_span(
            name,
            context=context,
            kind=SpanKind.PRODUCER,
            attributes=attributes if details is None else attributes | details,
        )
        if details is None and span.is_recording():
            span.set_attributes(self._send_details(cmd))
        # A copy: the caller's dictionary, or one that several publishers share, stays as it was.
        headers = dict(cmd.headers)
        inject(headers, trace.set_span_in_context(span, context))
        cmd.headers = headers
        return span, attributes

    def _send_details(self, cmd: PublishCommand) -> Attributes:
        details = self._shared.conventions.send_attributes(cmd)
        if (count := len(cmd.batch_bodies)) > 1:
            details[messaging.MESSAGING_BATCH_MESSAGE_COUNT] = count
        return details

    def _with_baggage(self, context: Context) -> Context:
        """Bring into the context what the handler did to FastStream's `CurrentBaggage`."""
        current: Baggage | None = self.context.get_local("baggage")
        if current is None:
            return context
        now = current.get_all()
        before = current.received if isinstance(current, _ReceivedBaggage) else {}
        if now == before:
            return context
        for key in before.keys() - now.keys():
            context = baggage.remove_baggage(key, context)
        for key, value in now.items():
            if before.get(key) != value:
                context = baggage.set_baggage(key, value, context)
        return context


def _while_busy(repository: ContextRepo, span: Span) -> Span | None:
    """The span of the message that was just processed.

    FastStream's outermost middleware logs "Processed" and a failed handler's traceback when every
    other middleware is done. It has a current subscriber for as long as it is busy with a message,
    and none between two.
    """
    return span if current_subscriber(repository) is not None else None


def _with_outcome(attributes: Attributes, failed: str | None) -> Attributes:
    return attributes | {ERROR_TYPE: failed} if failed else attributes


def _worth_details(parent: Context) -> bool:
    """Whether a span below this parent is likely to be recorded."""
    context = trace.get_current_span(parent).get_span_context()
    return not context.is_valid or context.trace_flags.sampled


def _links(received: Received) -> list[Link]:
    """One link per message that carries a trace, in the batch's order."""
    links = []
    for headers, attributes in zip(received.headers, received.link_attributes, strict=True):
        extracted = extract(headers)
        context = trace.get_current_span(extracted).get_span_context()
        if context.is_valid:
            links.append(Link(context, attributes))
    return links


class _ReceivedBaggage(Baggage):
    """FastStream's `CurrentBaggage`, which remembers what the message came with."""

    __slots__ = ("received",)

    def __init__(self, each: list[dict[str, Any]], *, batch: bool) -> None:
        self.received = {key: value for items in each for key, value in items.items()}
        # FastStream flags published batches in the baggage, and its stock middleware starts a new
        # trace wherever it sees the flag, on every later hop too: here it ends.
        now = {key: value for key, value in self.received.items() if key != "with_batch"}
        super().__init__(now, each if batch else None)


def _baggage(received: Received) -> Baggage:
    if not any("baggage" in headers for headers in received.headers):
        return Baggage({})
    each = [dict(baggage.get_all(extract(headers))) for headers in received.headers]
    return _ReceivedBaggage(each, batch=received.batch)


def _failure(raised: BaseException | None) -> BaseException | None:
    """The error behind what a handler raised, if it is one.

    SkipMessage, AckMessage and the like are decisions. A decision that was taken because of an
    error (`raise RejectMessage from error`) stands for that error.
    """
    if isinstance(raised, HandlerException | IgnoredException):
        return raised.__cause__
    return raised


__all__ = ("BrokerConventions", "LinkedTelemetryMiddleware", "Received")
