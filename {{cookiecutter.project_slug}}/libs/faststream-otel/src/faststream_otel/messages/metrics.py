"""The OTLP metrics of messages."""

from opentelemetry.metrics import Meter

from ..telemetry import semconv as messaging
from ..telemetry.metrics import DURATION_BOUNDARIES
from ..telemetry.values import Attributes


class MessageMetrics:
    """The metrics of the messaging semantic conventions 1.44, "Messaging metrics".

    Args:
        meter: Makes the instruments.
        counters: Whether to count messages, in addition to measuring durations.
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
        """Record the publication of a message or a batch, with its outcome."""
        self._send_duration.record(seconds, attributes)
        if self._sent:
            self._sent.add(messages, attributes)

    def processed(self, seconds: float, messages: int, attributes: Attributes) -> None:
        """Record the handling of a message or a batch, with its outcome."""
        self._process_duration.record(seconds, attributes)
        if self._consumed:
            self._consumed.add(messages, attributes)
