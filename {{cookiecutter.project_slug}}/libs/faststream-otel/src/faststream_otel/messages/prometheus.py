"""FastStream's Prometheus metrics, and metrics that FastStream lacks.

In addition to FastStream's own metrics there are

- `messaging_receive_delay_seconds`: the time from the publication of a message to its receipt, by
  destination and consumer group;
- `messaging_flow_duration_seconds`: the time from the first publication of a flow to the end of its
  last handler, by the destination where it ended and the outcome, `succeeded` or `failed`;
- `messaging_retries_total`: attempts after the first, by destination;
- `messaging_dead_letters_total`: messages that were sent to the dead letters, by their original
  destination and `error_type`.

A flow starts when a message is published outside of any handler. It includes all messages that
handlers publish as a result; a header of each has the time of the start. It ends at each handler
that publishes nothing, and at each dead letter. A redelivered message counts again.
"""

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Protocol

from faststream import BaseMiddleware, ContextRepo, PublishCommand
from faststream.exceptions import IgnoredException, NackMessage
from faststream.message import SourceType, StreamMessage
from faststream.prometheus.consts import (
    PROCESSING_STATUS_BY_ACK_STATUS,
    PROCESSING_STATUS_BY_HANDLER_EXCEPTION_MAP,
)
from faststream.prometheus.container import MetricsContainer
from faststream.prometheus.provider import MetricsSettingsProvider
from faststream.prometheus.types import ProcessingStatus, PublishingStatus
from faststream.response import PublishType
from opentelemetry.semconv.attributes.error_attributes import ERROR_TYPE
from prometheus_client import CollectorRegistry, Counter, Histogram

from ..telemetry import semconv as messaging
from ..telemetry.errors import error_type
from ..telemetry.prometheus import label
from ._faststream import current_subscriber
from .middleware import Destination
from .outcome import handler_error

FLOW_STARTED = "flow-started"
"""The header with the start of the flow: Unix milliseconds, in decimal digits."""
_MILLISECONDS = re.compile("[0-9]{1,15}")

_DELAYS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900)
_DURATIONS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class MessagingMetrics:
    """The metrics that FastStream lacks.

    Args:
        registry: Registers the metrics. Make one object per registry.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        destination = label(messaging.MESSAGING_DESTINATION_TEMPLATE)
        group = label(messaging.MESSAGING_CONSUMER_GROUP_NAME)
        self.receive_delay = _Histograms(
            Histogram(
                "messaging_receive_delay_seconds",
                "Time from the publication of a message to its receipt.",
                [destination, group],
                buckets=_DELAYS,
                registry=registry,
            )
        )
        self.flow_duration = _Histograms(
            Histogram(
                "messaging_flow_duration_seconds",
                "Time from the first publication of a flow to the end of the last handler in it.",
                [destination, "outcome"],
                buckets=_DURATIONS,
                registry=registry,
            )
        )
        self._retries = Counter(
            "messaging_retries_total",
            "Attempts to handle a message, beyond the first.",
            [destination],
            registry=registry,
        )
        self._dead_letters = Counter(
            "messaging_dead_letters_total",
            "Messages sent to the dead letters.",
            [destination, label(ERROR_TYPE)],
            registry=registry,
        )

    def retry(self, destination: str) -> None:
        """Count an attempt after the first."""
        self._retries.labels(destination).inc()

    @contextmanager
    def dead_letter(
        self, destination: str, error: Exception, headers: Mapping[str, Any]
    ) -> Iterator[None]:
        """Count a dead letter, if the block that publishes it succeeds.

        What the block publishes does not belong to the message's flow.

        Args:
            destination: The destination that the message came from.
            error: The error that its handler failed with.
            headers: The headers of the message.
        """
        flow = _current.get()
        token = _current.set(None)
        try:
            yield
        finally:
            _current.reset(token)
        self._dead_letters.labels(destination, error_type(error)).inc()
        if flow:
            flow.give_up(headers)


class _Flow:
    """The flows of the messages that are being handled now."""

    __slots__ = ("given_up", "passed_on", "since", "started")

    def __init__(self, started: list[float]) -> None:
        self.started = started
        """The start of each flow whose message is not a dead letter, in Unix seconds."""
        self.given_up: list[float] = []
        """The start of each flow whose message is a dead letter."""
        self.since = min(started)
        self.passed_on = False

    def give_up(self, headers: Mapping[str, Any]) -> None:
        if self.started:
            started = _started(headers, self.started[0])
            position = self.started.index(started) if started in self.started else 0
            self.given_up.append(self.started.pop(position))


_current: ContextVar[_Flow | None] = ContextVar("flow", default=None)


class MetricConventions(Protocol):
    """What metrics need to know about one broker."""

    def received_from(self, message: Any, subscriber: Any) -> Destination:
        """See `BrokerConventions` of `messages.middleware`, also for the next one."""

    def sent_to(self, command: Any) -> Destination:
        """The destination of a publication."""

    def published_at(self, message: Any) -> Sequence[float]:
        """Time of publication of each message, in Unix seconds; empty if unknown.

        Args:
            message: A message, or a batch, of the client library.
        """

    def consumer_group(self, subscriber: Any) -> str | None:
        """`messaging.consumer.group.name` of a FastStream subscriber."""


class MessagingPrometheusMiddleware:
    """Replaces FastStream's `PrometheusMiddleware`.

    Args:
        conventions: What metrics need to know about the broker.
        metrics: The metrics that FastStream lacks, in the same registry.
        settings_provider_factory: FastStream's factory for the broker.
        registry: Registers FastStream's metrics.
        app_name: The label `app_name`. Default: the prefix.
        metrics_prefix: The prefix of the names of FastStream's own metrics.
        received_messages_size_buckets: In bytes. Default: FastStream's.
    """

    def __init__(
        self,
        *,
        conventions: MetricConventions,
        metrics: MessagingMetrics,
        settings_provider_factory: Callable[[Any], MetricsSettingsProvider[Any, Any] | None],
        registry: CollectorRegistry,
        app_name: str | None = None,
        metrics_prefix: str = "faststream",
        received_messages_size_buckets: Sequence[float] | None = None,
    ) -> None:
        self.conventions = conventions
        self.metrics = metrics
        self._make_provider = settings_provider_factory
        self._providers: dict[type, MetricsSettingsProvider[Any, Any] | None] = {}
        self._container = MetricsContainer(
            registry,
            metrics_prefix=metrics_prefix,
            received_messages_size_buckets=received_messages_size_buckets,
            custom_label_names=(),
        )
        self._app_name = metrics_prefix if app_name is None else app_name
        self._consumed: dict[str, _Consumed] = {}
        self._published: dict[str, _Published] = {}

    def provider(self, kind: type, msg: Any) -> MetricsSettingsProvider[Any, Any] | None:
        """FastStream's knowledge of this kind of message; cached."""
        if kind not in self._providers:
            self._providers[kind] = self._make_provider(msg)
        return self._providers[kind]

    def consumed(self, destination: str, system: str) -> "_Consumed":
        if (known := self._consumed.get(destination)) is None:
            labels = {"app_name": self._app_name, "broker": system, "handler": destination}
            known = self._consumed[destination] = _Consumed(self._container, labels)
        return known

    def published(self, destination: str, system: str) -> "_Published":
        if (known := self._published.get(destination)) is None:
            labels = {"app_name": self._app_name, "broker": system, "destination": destination}
            known = self._published[destination] = _Published(self._container, labels)
        return known

    def sent_headers(self) -> Mapping[str, str]:
        """Headers to add to a publication, for a broker that stores no time of publication."""
        return {}

    def __call__(self, msg: Any | None, /, *, context: ContextRepo) -> "_MeasuredMessage":
        return _MeasuredMessage(msg, self, context)


class _Consumed:
    """FastStream's metrics of messages consumed from one destination, with cached labels.

    `labels()` is slow, and FastStream calls it seven times per message for the same few results.
    """

    def __init__(self, container: MetricsContainer, labels: dict[str, str]) -> None:
        self.received = container.received_messages_total.labels(**labels)
        self.size = container.received_messages_size_bytes.labels(**labels)
        self.in_process = container.received_messages_in_process.labels(**labels)
        self.duration = container.received_processed_messages_duration_seconds.labels(**labels)
        self.processed = _Children(container.received_processed_messages_total, "status", labels)
        self.exceptions = _Children(
            container.received_processed_messages_exceptions_total, "exception_type", labels
        )


class _Published:
    """FastStream's metrics of messages published to one destination, with cached labels."""

    def __init__(self, container: MetricsContainer, labels: dict[str, str]) -> None:
        self.duration = container.published_messages_duration_seconds.labels(**labels)
        self.total = _Children(container.published_messages_total, "status", labels)
        self.exceptions = _Children(
            container.published_messages_exceptions_total, "exception_type", labels
        )


class _Children(dict[str, Counter]):
    """The children of a counter, by the one label that differs."""

    def __init__(self, counter: Counter, label: str, labels: dict[str, str]) -> None:
        super().__init__()
        self._counter, self._label, self._labels = counter, label, labels

    def __missing__(self, value: str) -> Counter:
        child = self[value] = self._counter.labels(**self._labels, **{self._label: value})
        return child


class _Histograms(dict[tuple[str, str], Histogram]):
    """The children of a histogram, by its two labels."""

    def __init__(self, histogram: Histogram) -> None:
        super().__init__()
        self._histogram = histogram

    def __missing__(self, values: tuple[str, str]) -> Histogram:
        child = self[values] = self._histogram.labels(*values)
        return child


class _MeasuredMessage(BaseMiddleware[PublishCommand, Any]):
    """Records what FastStream's middleware records, and the metrics that FastStream lacks."""

    __slots__ = ("_destination", "_flow", "_provider", "_shared", "_token")

    def __init__(
        self, msg: Any, shared: MessagingPrometheusMiddleware, context: ContextRepo
    ) -> None:
        super().__init__(msg, context=context)
        self._shared = shared
        self._provider = shared.provider(type(msg), msg)
        self._flow: _Flow | None = None

    async def consume_scope(self, call_next: Callable[[Any], Any], msg: StreamMessage[Any]) -> Any:
        provider = self._provider
        if provider is None or msg.source_type is SourceType.RESPONSE:
            return await call_next(msg)
        attributes = provider.get_consume_attrs_from_message(msg)
        self._receive(msg)
        count = attributes["messages_count"]
        metrics = self._shared.consumed(self._destination, provider.messaging_system)
        metrics.received.inc(count)
        metrics.size.observe(attributes["message_size"])
        metrics.in_process.inc(count)
        failed: type[Exception] | None = None  # not the error: its traceback refers to this frame
        started = time.perf_counter()
        try:
            return await call_next(msg)
        except Exception as error:
            failed = type(error)
            if not isinstance(error, IgnoredException):
                metrics.exceptions[failed.__name__].inc()
            raise
        finally:
            metrics.duration.observe(time.perf_counter() - started)
            metrics.in_process.dec(count)
            metrics.processed[_status(msg, failed)].inc(count)

    async def after_processed(
        self,
        exc_type: type[BaseException] | None = None,
        exc_val: BaseException | None = None,
        exc_tb: TracebackType | None = None,
    ) -> bool | None:
        # Not in `consume_scope`: FastStream publishes a handler's result after that.
        if (flow := self._flow) is not None:
            _current.reset(self._token)
            if not isinstance(exc_val, NackMessage) and not _is_interrupted(exc_val):
                self._end(flow, failed=handler_error(exc_val) is not None)
        return False

    async def publish_scope(
        self, call_next: Callable[[PublishCommand], Any], cmd: PublishCommand
    ) -> Any:
        flow = _current.get()
        if flow:
            flow.passed_on = True
        started = flow.since if flow else time.time()
        # A copy: the dictionary belongs to the caller, or several publishers share it.
        cmd.headers = {
            **cmd.headers,
            **self._shared.sent_headers(),
            FLOW_STARTED: str(int(started * 1000)),
        }
        provider = self._provider
        if provider is None or cmd.publish_type is PublishType.REPLY:
            return await call_next(cmd)
        destination = self._shared.conventions.sent_to(cmd).channel
        metrics = self._shared.published(destination, provider.messaging_system)
        status = PublishingStatus.success
        began = time.perf_counter()
        try:
            return await call_next(cmd)
        except Exception as raised:
            status = PublishingStatus.error
            metrics.exceptions[type(raised).__name__].inc()
            raise
        finally:
            metrics.duration.observe(time.perf_counter() - began)
            metrics.total[status.value].inc(len(cmd.batch_bodies))

    def _receive(self, msg: StreamMessage[Any]) -> None:
        """Observe how long the messages waited, and set the current flow."""
        now = time.time()
        conventions, subscriber = self._shared.conventions, current_subscriber(self.context)
        published = conventions.published_at(self.msg)
        self._destination = conventions.received_from(self.msg, subscriber).channel
        group = conventions.consumer_group(subscriber) or ""
        delay = self._shared.metrics.receive_delay[self._destination, group]
        for then in published:
            delay.observe(max(0.0, now - then))  # the clocks of two machines differ
        each = msg.batch_headers or (msg.headers,)
        since = published if len(published) == len(each) else (now,) * len(each)
        self._flow = _Flow([*map(_started, each, since)])
        self._token = _current.set(self._flow)

    def _end(self, flow: _Flow, *, failed: bool) -> None:
        """Observe the flows that end here."""
        now = time.time()
        durations = self._shared.metrics.flow_duration
        if failed and not flow.given_up:
            flow.given_up, flow.started = flow.started, []
        for started in flow.given_up:
            durations[self._destination, "failed"].observe(max(0.0, now - started))
        if not flow.passed_on:
            for started in flow.started:
                durations[self._destination, "succeeded"].observe(max(0.0, now - started))


def _status(msg: StreamMessage[Any], failed: type[Exception] | None) -> str:
    """The outcome, as FastStream names it."""
    status = None
    if msg.committed or failed:
        status = (
            PROCESSING_STATUS_BY_ACK_STATUS.get(msg.committed)  # type: ignore[arg-type]
            or PROCESSING_STATUS_BY_HANDLER_EXCEPTION_MAP.get(failed)  # type: ignore[arg-type]
            or ProcessingStatus.error
        )
    return (status or ProcessingStatus.acked).value


def _is_interrupted(raised: BaseException | None) -> bool:
    """Whether the handler was cancelled or the process stops: then the message is redelivered."""
    return raised is not None and not isinstance(raised, Exception)


def _started(headers: Mapping[str, Any], otherwise: float) -> float:
    """The start of a message's flow, in Unix seconds; `otherwise` if no header has it."""
    value = headers.get(FLOW_STARTED)
    if isinstance(value, str) and _MILLISECONDS.fullmatch(value):
        return int(value) / 1000
    return otherwise
