"""What the broker reports about channels and consumer groups, for the command `lag-exporter`.

- `messaging_consumer_lag`: messages that a consumer group has not acknowledged, by channel, group,
  partition if the broker has them, and state: `ready`, or `in_flight` for delivered ones,
  if the broker counts those;
- `messaging_consumer_position`: grows with each acknowledged message, if the broker reports it;
- `messaging_channel_replicas` and `messaging_channel_replicas_in_sync`: copies of a channel, or of
  each partition, that are configured, and that have every message, if the broker reports them;
- `messaging_broker_up`: 1, or 0 while the broker does not report the lag. Then the others are
  absent.

Lag and position have the `service_name` of the service whose group it is, if that is known.

The broker is asked at each scrape, so the metrics are as old as the answer.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any, Generic, TypeAlias, TypeVar

from opentelemetry.semconv.attributes.service_attributes import SERVICE_NAME
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ..telemetry import semconv as messaging
from ..telemetry.prometheus import label
from .broker import Broker, Group, Unreachable

T = TypeVar("T")
Asgi: TypeAlias = Callable[[Any, Any, Any], Awaitable[None]]

ANSWER_SECONDS = 5.0
"""Half of Prometheus's default scrape timeout."""
_HEALTH = ("/health/live", "/health/ready")
_CHANNEL = label(messaging.MESSAGING_DESTINATION_TEMPLATE)
_PARTITION = label(messaging.MESSAGING_DESTINATION_PARTITION_ID)
_LABELS = [
    _CHANNEL,
    label(messaging.MESSAGING_CONSUMER_GROUP_NAME),
    _PARTITION,
    label(SERVICE_NAME),
]

logger = logging.getLogger(__name__)


class _Question(Generic[T]):
    """A question to the broker at each scrape.

    Attributes:
        answer: The last answer; None if there was none in time.
        reason: Why there is none.
    """

    def __init__(self, question: Callable[[], Awaitable[list[T]]], seconds: float) -> None:
        self.answer: list[T] | None = None
        self.reason = ""
        self._question, self._seconds = question, seconds
        self._asking: asyncio.Task[None] | None = None

    async def ask(self) -> None:
        if self._asking is None or self._asking.done():  # two scrapes share one question
            self._asking = asyncio.create_task(self._ask())
        answered, _ = await asyncio.wait({self._asking}, timeout=self._seconds)
        if not answered:
            self._asking.cancel()
            self.answer, self.reason = None, f"no answer within {self._seconds:g} s"

    async def _ask(self) -> None:
        try:
            self.answer, self.reason = await self._question(), ""
        except Unreachable as error:
            self.answer, self.reason = None, str(error)
        except Exception as error:
            self.answer, self.reason = None, f"{type(error).__name__}: {error}"


class LagMetrics(Collector):
    """Collects what the broker answered at the last `ask`.

    Args:
        groups: The consumer groups to ask about, each with its service's name; empty if unknown.
        seconds: How long the broker may take for each answer. If it takes longer for the lag, it
            counts as down.
    """

    def __init__(
        self, broker: Broker, groups: Mapping[Group, str], seconds: float = ANSWER_SECONDS
    ) -> None:
        channels = {group.channel for group in groups}
        self._broker, self._groups = broker, groups
        self._lag = _Question(lambda: broker.lag(groups), seconds)
        self._replicas = _Question(lambda: broker.replicas(channels), seconds)
        self._missing = ""

    async def ask(self) -> None:
        """Ask the broker. Raises nothing: a reason why it does not answer is logged once."""
        await asyncio.gather(self._lag.ask(), self._replicas.ask())
        reasons = {"lag": self._lag.reason, "copies of channels": self._replicas.reason}
        missing = next((what for what, reason in reasons.items() if reason), "")
        if missing and missing != self._missing:
            logger.warning(
                "No %s from the broker at %s (BROKER_URL): %s",
                missing, self._broker.url, reasons[missing],
            )  # fmt: skip
        elif self._missing and not missing:
            logger.info("The broker at %s answers again", self._broker.url)
        self._missing = missing

    def collect(self) -> Iterator[Metric]:
        up = GaugeMetricFamily(
            "messaging_broker_up",
            "Whether the broker answers.",
            labels=[label(messaging.MESSAGING_SYSTEM)],
        )
        up.add_metric([self._broker.system], self._lag.answer is not None)
        lag = GaugeMetricFamily(
            "messaging_consumer_lag",
            "Messages that a consumer group has not acknowledged.",
            labels=[*_LABELS, "state"],
        )
        position = GaugeMetricFamily(
            "messaging_consumer_position",
            "Grows with every message that a consumer group acknowledges.",
            labels=_LABELS,
        )
        replicas = GaugeMetricFamily(
            "messaging_channel_replicas",
            "Configured replicas of a channel.",
            labels=[_CHANNEL, _PARTITION],
        )
        in_sync = GaugeMetricFamily(
            "messaging_channel_replicas_in_sync",
            "Replicas of a channel that have every message.",
            labels=[_CHANNEL, _PARTITION],
        )
        for one in self._lag.answer or ():
            service = self._groups.get(Group(one.channel, one.group), "")
            labels = [one.channel, one.group, one.partition, service]
            lag.add_metric([*labels, "ready"], one.ready)
            if one.in_flight is not None:
                lag.add_metric([*labels, "in_flight"], one.in_flight)
            if one.position is not None:
                position.add_metric(labels, one.position)
        for each in () if self._lag.answer is None else self._replicas.answer or ():
            replicas.add_metric([each.channel, each.partition], each.configured)
            in_sync.add_metric([each.channel, each.partition], each.in_sync)
        yield from (up, lag, position, replicas, in_sync)

    def asgi(self, metrics: Asgi) -> Asgi:
        """An ASGI application: `/metrics` asks first; the health checks do not need the broker.

        Args:
            metrics: Serves the registry.
        """

        async def serve(scope: Mapping[str, Any], receive: Any, send: Any) -> None:
            if scope["type"] == "http" and scope["path"] == "/metrics":
                await self.ask()
                await metrics(scope, receive, send)
            elif scope["type"] == "http":
                status = 204 if scope["path"] in _HEALTH else 404
                await send({"type": "http.response.start", "status": status, "headers": []})
                await send({"type": "http.response.body", "body": b""})

        return serve
