"""The OTLP metrics of messages."""

from collections.abc import Mapping

from opentelemetry.metrics import Meter
from opentelemetry.util.types import AttributeValue

from ..telemetry import semconv as messaging
from ..telemetry.metrics import DURATION_BOUNDARIES

Attributes = Mapping[str, AttributeValue]


class MessageMetrics:
    """The metrics of the messaging semantic conventions 1.44, "Messaging metrics".

    Args:
        meter: To make the instruments with.
        counters: Whether messages are counted, beside being timed.
    """

    def __init__(self, meter: Meter, *, counters: bool) -> None:
        self._send_duration = meter.create_histogram(
            messaging.MESSAGING_CLIENT_OPERATION_DURATION,
            unit="s",
            description="Duration of messaging operations initiated by a producer or consumer.",
            explicit_bucket_boundaries_advisory=DURATION_BOUNDARIES,
        )
        self._process_duration = meter.create_histogram(
            messaging.MESSAGING_PROCESS_DURATION,
            unit="s",
            description="Duration of processing operation.",
            explicit_bucket_boundaries_advisory=DURATION_BOUNDARIES,
        )
        self._sent = self._consumed = None
        if counters:
            self._sent = meter.create_counter(
                messaging.MESSAGING_CLIENT_SENT_MESSAGES,
                unit="{message}",
                description="Number of messages producer attempted to send to the broker.",
            )
            self._consumed = meter.create_counter(
                messaging.MESSAGING_CLIENT_CONSUMED_MESSAGES,
                unit="{message}",
                description="Number of messages that were delivered to the application.",
            )

    def sent(self, seconds: float, messages: int, attributes: Attributes) -> None:
        """Record one publication, of a message or a batch of them, with its outcome."""
        self._send_duration.record(seconds, attributes)
        if self._sent:
            self._sent.add(messages, attributes)

    def processed(self, seconds: float, messages: int, attributes: Attributes) -> None:
        """Record one delivery, of a message or a batch of them, with the outcome of handling it."""
        self._process_duration.record(seconds, attributes)
        if self._consumed:
            self._consumed.add(messages, attributes)
