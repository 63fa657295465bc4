"""The lag of consumer groups as Prometheus metrics, for the command `lag-exporter`.

- `messaging_consumer_lag`: messages that a consumer group has not acknowledged, by channel, group,
  partition if the broker has them, and state: `ready`, or `in_flight` for delivered ones,
  if the broker counts those;
- `messaging_consumer_position`: grows with each acknowledged message, if the broker tells it;
- `messaging_broker_up`: 1, or 0 while the broker does not answer. Then the others are absent.

The broker is asked at each scrape, so the metrics are as old as the answer.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from typing import Any, TypeAlias

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ..telemetry import semconv as messaging
from ..telemetry.prometheus import label
from .broker import Broker, Group, Lag, Unreachable

Asgi: TypeAlias = Callable[[Any, Any, Any], Awaitable[None]]

ANSWER_SECONDS = 5.0
"""Half of Prometheus's default limit of a scrape."""
_HEALTH = ("/health/live", "/health/ready")
_LABELS = [
    label(name)
    for name in (
        messaging.MESSAGING_DESTINATION_TEMPLATE,
        messaging.MESSAGING_CONSUMER_GROUP_NAME,
        messaging.MESSAGING_DESTINATION_PARTITION_ID,
    )
]

logger = logging.getLogger(__name__)


class LagMetrics(Collector):
    """Collects the lag that the broker told at the last `ask`.

    Args:
        groups: The consumer groups to ask for.
        seconds: How long the broker may take to answer. After that it counts as down.
    """

    def __init__(
        self, broker: Broker, groups: Collection[Group], seconds: float = ANSWER_SECONDS
    ) -> None:
        self._broker, self._groups, self._seconds = broker, groups, seconds
        self._found: list[Lag] | None = None
        self._reason = ""
        self._asking: asyncio.Task[None] | None = None

    async def ask(self) -> None:
        """Ask the broker. Raises nothing: a reason why it is unreachable is logged once."""
        if self._asking is None or self._asking.done():  # two scrapes share one question
            self._asking = asyncio.create_task(self._ask())
        answered, _ = await asyncio.wait({self._asking}, timeout=self._seconds)
        if not answered:
            self._asking.cancel()
            self._tell(None, f"no answer within {self._seconds:g} s")

    async def _ask(self) -> None:
        try:
            self._tell(await self._broker.lag(self._groups))
        except Unreachable as error:
            self._tell(None, str(error))
        except Exception as error:
            self._tell(None, f"{type(error).__name__}: {error}")

    def _tell(self, found: list[Lag] | None, reason: str = "") -> None:
        self._found = found
        if reason and not self._reason:
            logger.warning(
                "No lag from the broker at %s (BROKER_URL): %s", self._broker.url, reason
            )
        elif self._reason and not reason:
            logger.info("The broker at %s answers again", self._broker.url)
        self._reason = reason

    def collect(self) -> Iterator[Metric]:
        up = GaugeMetricFamily(
            "messaging_broker_up",
            "Whether the broker answers.",
            labels=[label(messaging.MESSAGING_SYSTEM)],
        )
        up.add_metric([self._broker.system], self._found is not None)
        lag = GaugeMetricFamily(
            "messaging_consumer_lag",
            "Messages that a consumer group has not acknowledged.",
            labels=[*_LABELS, "state"],
        )
        position = GaugeMetricFamily(
            "messaging_consumer_position",
            "Grows with each message that a consumer group acknowledges.",
            labels=_LABELS,
        )
        for one in self._found or ():
            labels = [one.channel, one.group, one.partition]
            lag.add_metric([*labels, "ready"], one.ready)
            if one.in_flight is not None:
                lag.add_metric([*labels, "in_flight"], one.in_flight)
            if one.position is not None:
                position.add_metric(labels, one.position)
        yield from (up, lag, position)

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
