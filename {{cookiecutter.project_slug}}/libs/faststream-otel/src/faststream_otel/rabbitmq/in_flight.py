"""Messages in flight, from RabbitMQ's own metrics: AMQP does not tell them."""

import asyncio
import logging
import urllib.request
from collections.abc import Iterator, Mapping
from http.client import HTTPException
from urllib.parse import urlencode, urlsplit

from prometheus_client.parser import text_string_to_metric_families

from ..settings import BadSetting
from .settings import RabbitSettings

SECONDS = 2.0
"""The time-out of each node."""
UNACKNOWLEDGED = "rabbitmq_detailed_queue_messages_unacked"
EXAMPLE = "http://rabbitmq:15692"

# Without the proxies of the environment, like the connection to the broker.
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))

logger = logging.getLogger(__name__)


class InFlight:
    """Asks RabbitMQ's plugin `rabbitmq_prometheus` on each node of BROKER_METRICS_URL.

    Raises:
        BadSetting: BROKER_METRICS_URL has something else than URLs.
    """

    def __init__(self, settings: RabbitSettings) -> None:
        self._virtual_host = settings.broker_virtual_host
        self._urls = list(_urls(settings.broker_metrics_url))
        self._failing: set[str] = set()

    async def by_queue(self) -> Mapping[str, int]:
        """The number of messages in flight of each queue that is known, some seconds old.

        Each node knows the queues that it leads. Raises nothing: the log says once why a node does
        not tell.
        """
        answers = await asyncio.gather(*(self._ask(url) for url in self._urls))
        return {queue: number for answer in answers for queue, number in answer.items()}

    async def _ask(self, url: str) -> Mapping[str, int]:
        query = urlencode({"family": "queue_coarse_metrics", "vhost": self._virtual_host})
        try:
            async with asyncio.timeout(SECONDS):
                text = await asyncio.to_thread(_get, f"{url}/metrics/detailed?{query}")
            found = dict(self._numbers(text))
        except (OSError, HTTPException, ValueError) as error:
            reason = str(error) or f"no answer within {SECONDS:g} s"  # TimeoutError has no text
            if url not in self._failing:
                logger.warning(
                    "The number of messages in flight is unknown: no RabbitMQ metrics at %s"
                    " (BROKER_METRICS_URL): %s", url, reason,
                )  # fmt: skip
            self._failing.add(url)
            return {}
        self._failing.discard(url)
        return found

    def _numbers(self, text: str) -> Iterator[tuple[str, int]]:
        # Parsing the rest of the page would take most of the time.
        lines = "".join(f"{one}\n" for one in text.split("\n") if one.startswith(UNACKNOWLEDGED))
        for family in text_string_to_metric_families(lines):
            for sample in family.samples:
                if sample.labels.get("vhost") == self._virtual_host:
                    yield sample.labels["queue"], int(sample.value)


def _urls(text: str) -> Iterator[str]:
    for url in filter(None, map(str.strip, text.split(","))):
        try:
            parts = urlsplit(url)
            valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            valid = False
        if not valid or "@" in url:  # maybe a password: not shown
            raise BadSetting(
                "BROKER_METRICS_URL is not a URL without a password: set it to where RabbitMQ's"
                f" plugin rabbitmq_prometheus listens, for example BROKER_METRICS_URL={EXAMPLE}"
            )
        yield url.rstrip("/").removesuffix("/metrics")


def _get(url: str) -> str:
    with _DIRECT.open(url, timeout=SECONDS) as answer:
        body: bytes = answer.read()
    return body.decode()
