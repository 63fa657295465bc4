"""The stack that is measured: one bake in Docker, its channels, and orders for it."""

import http.client
import json
import re
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import yaml
from aiokafka.partitioner import DefaultPartitioner
from confluent_kafka import ConsumerGroupState
from confluent_kafka.admin import AdminClient, NewPartitions  # type: ignore[attr-defined]
from e2e.apis import Prometheus
from e2e.load import some_order
from e2e.poll import poll_until
from e2e.stack import ONLOOKER, Stack, docker

from ..drills.brokers.kafka import QUIET, InKafka
from ..drills.flow import CONSUMERS, DEAD_LETTERS, SERVICES, group
from ..drills.samples import body, message
from .meters import samples

CONSUMED = tuple(channel for channel in CONSUMERS if CONSUMERS[channel] in SERVICES)
"""The example's channels."""
SENDERS = 8
"""Orders that wait for their answer at the same time."""
SCALED = ("payments", "shipping")
"""The services that get replicas."""
EXPORT_SECONDS = 8.0
"""A service exports spans 5 s after they end at the latest, and the Collector soon after."""
BLOCK_SECONDS = 35.0
"""Tempo begins a new block after 30 s, and then writes the old one."""
DRAIN_SECONDS = 120.0
VOLUMES = ("kafka", "tempo", "loki", "prometheus")
COUNTED = {
    "spans": ("otel-collector", "otelcol_receiver_accepted_spans"),
    "records": ("otel-collector", "otelcol_receiver_accepted_log_records"),
    "stored_spans": ("tempo", "tempo_distributor_spans_received_total"),
    "trace_bytes": ("tempo", "tempo_distributor_bytes_received_total"),
    "log_bytes": ("loki", "loki_distributor_bytes_received_total"),
    # Of the service graph: spans whose other side never came, and spans that it had no room for.
    "unpaired": ("otel-collector", "otelcol_connector_servicegraph_expired_edges"),
    "uncounted": ("otel-collector", "otelcol_connector_servicegraph_dropped_spans"),
}
WAIT = "HANDLER_WAIT_SECONDS"
"""Variable of the changed handlers."""
FIRST = "first-layer"
"""The name of the Collector before the other."""
FILES_OF_FIRST = ("collector", "otlp/tls/off", "otlp/auth/none", "forward/off", "redaction/on",
                  "first-layer")  # fmt: skip
FIRST_LAYER = {
    "receivers": {"otlp/none": {"protocols": {"grpc": {"endpoint": "127.0.0.1:0"}}}},
    "exporters": {
        "nop": {},
        "load_balancing": {
            "protocol": {"otlp": {"tls": {"insecure": True}}},
            "resolver": {"static": {"hostnames": ["otel-collector:4317"]}},
        },
    },
    "service": {
        "pipelines": {
            "traces": {"exporters": ["load_balancing"]},
            # Of what counts and stores spans, nothing.
            "traces/none": {
                "receivers": ["otlp/none"],
                "exporters": ["span_metrics", "service_graph", "forward/store"],
            },
            "traces/store": {"exporters": ["nop"]},
        }
    },
}
SECOND_LAYER = {
    "exporters": {"debug": {}},
    "service": {"pipelines": {"traces": {"processors": ["memory_limiter"]}}},
}


@dataclass
class Site:
    """The running project.

    Attributes:
        quick: For a look: shorter.
    """

    stack: Stack
    quick: bool
    channels: InKafka = field(init=False)

    def __post_init__(self) -> None:
        self.channels = InKafka(f"127.0.0.1:{self.stack.ports['KAFKA_PORT']}")

    @classmethod
    def make(cls, folder: Path, *, quick: bool) -> "Site":
        """Bake the default project below a folder, its handlers changed so that they can wait."""
        settings = "DEPLOYMENT_ENVIRONMENT=scale\n"
        stack = Stack.bake(folder, "scale", settings, traces="tempo", broker="kafka")
        for service in SCALED:
            (path,) = (stack.folder / "src").glob(f"*/services/{service}.py")
            path.write_text(with_wait(path.read_text("utf-8")), "utf-8")
        waits = {name: {"environment": {WAIT: f"${{{WAIT}:-0}}"}} for name in SCALED}
        override = yaml.safe_dump({"services": waits})
        (stack.folder / "compose.override.yaml").write_text(override, "utf-8")
        return cls(stack, quick)

    def seconds(self, whole: float) -> float:
        return whole / 3 if self.quick else whole

    # --- Start, and changes

    def start(self, partitions: int) -> None:
        """Start everything, with so many partitions of each channel."""
        self.stack.compose("up", "--detach", "--wait", "--no-build", "kafka", timeout=300)
        self.channels.create(CONSUMED, partitions)
        self.stack.up()

    @contextmanager
    def two_layers(self) -> Iterator[None]:
        """Put a second Collector before the first, which then neither masks nor gets the rest.

        As it is where one Collector is too little: the first layer masks all, and sends all spans
        of a trace to the same one of the second.
        """
        folder = self.stack.folder / "observability/otel-collector/config"
        last = folder / "debug/off.yaml"  # the last of the files that are merged
        before = last.read_text()
        (folder / "first-layer.yaml").write_text(yaml.safe_dump(FIRST_LAYER))
        last.write_text(yaml.safe_dump(SECOND_LAYER))
        name = f"{self.stack.project}-{FIRST}"
        image = self.stack.containers()["otel-collector"]["Image"]
        docker(
            "run", "--detach", "--name", name,
            "--network", f"{self.stack.project}_observability", "--network-alias", FIRST,
            "--label", f"com.docker.compose.project={self.stack.project}",
            "--label", f"com.docker.compose.service={FIRST}",
            "--volume", f"{folder}:/etc/otelcol:ro,z",
            image, *(f"--config=/etc/otelcol/{file}.yaml" for file in FILES_OF_FIRST),
        )  # fmt: skip
        try:
            self.stack.restart("otel-collector")
            self.change(f"OTEL_EXPORTER_OTLP_ENDPOINT=http://{FIRST}:4317\n")
            yield
        finally:
            docker("rm", "--force", name)
            last.write_text(before)

    def change(self, settings: str) -> None:
        """Add lines to .env, and start anew what they concern."""
        self.stack.configure(settings)
        self.stack.compose(
            "up", "--detach", "--wait", "--no-build", "otel-collector", *SERVICES, timeout=300
        )

    def stop_consumers(self, wait: float) -> None:
        """Remove the consumers; the handlers of the next ones will wait so many seconds each."""
        self.stack.compose("rm", "--stop", "--force", *SCALED, "notifications", timeout=120)
        self.stack.configure(f"{WAIT}={wait:g}\n")

    def partitions(self) -> int:
        """How many each channel has."""
        return sum(channel == CONSUMED[0] for channel, _ in self.channels.ends())

    def add_partitions(self, number: int) -> None:
        """Give each channel so many partitions; there must be fewer now."""
        wanted = [NewPartitions(channel, number) for channel in CONSUMED]
        admin = AdminClient({"bootstrap.servers": self.channels.address, **QUIET})
        for done in admin.create_partitions(wanted).values():
            done.result(30)

    def scale(self, replicas: int) -> None:
        """Run so many replicas of the scaled services, and wait until each is in its group."""
        scales = [word for one in SCALED for word in ("--scale", f"{one}={replicas}")]
        self.stack.compose(
            "up", "--detach", "--wait", "--no-build", "--no-deps", "--no-recreate",
            *scales, *SCALED, "notifications", timeout=300,
        )  # fmt: skip
        admin = AdminClient({"bootstrap.servers": self.channels.address, **QUIET})
        groups = [group(one) for one in CONSUMED if CONSUMERS[one] in SCALED]

        def settled() -> bool:
            found = [one.result(30) for one in admin.describe_consumer_groups(groups).values()]
            return all(
                one.state == ConsumerGroupState.STABLE and len(one.members) == replicas
                for one in found
            )

        poll_until(settled, f"{replicas} members of each group", 90)

    # --- Orders

    def place(self, orders: int, rate: float | None = None) -> float:
        """Place good orders over HTTP, by so many a second or as fast as they are answered.

        Returns:
            Orders per second.

        Raises:
            OSError: One was refused.
        """
        numbers, lock, began = count(), threading.Lock(), time.monotonic()

        def send(_: int) -> None:
            with closing(
                http.client.HTTPConnection("127.0.0.1", self.stack.ports["ORDERS_PORT"], timeout=60)
            ) as connection:
                while True:
                    with lock:
                        number = next(numbers)
                    if number >= orders:
                        return
                    if rate:
                        time.sleep(max(0.0, began + number / rate - time.monotonic()))
                    place(connection)

        with ThreadPoolExecutor(SENDERS) as pool:
            list(pool.map(send, range(SENDERS)))
        return orders / (time.monotonic() - began)

    def publish(self, orders: int, partitions: int) -> None:
        """Put orders into the first channel, past HTTP: a backlog, even over its partitions.

        All channels of an order have its id as their key, so they are even too.
        """
        channel = CONSUMED[0]
        found = []
        for number in range(orders):
            partition = number % partitions
            order = body(channel)
            while partition_of(order["order_id"], partitions) != partition:
                order = body(channel)
            found.append(message(channel, order, partition=partition))
        self.channels.send(found)

    def wait_until_drained(self) -> None:
        poll_until(
            lambda: not any(self.channels.unread().values()), "empty channels", DRAIN_SECONDS
        )

    def dispatched(self) -> int:
        """Orders that the last scaled service has sent on."""
        ends = self.channels.ends()
        return sum(end for (channel, _), end in ends.items() if channel == "shipments.dispatched")

    def dead_letters(self) -> int:
        ends = self.channels.ends()
        return sum(end for (channel, _), end in ends.items() if channel == DEAD_LETTERS)

    # --- What the stores say

    @property
    def prometheus(self) -> Prometheus:
        return Prometheus(self.stack.url("PROMETHEUS_PORT"))

    def counted(self) -> dict[str, float]:
        """What the Collector and the stores count: spans, records, bytes and waiting edges."""
        of = {
            one: samples(self._page(one, port))
            for one, port in (("otel-collector", 8888), ("tempo", 3200), ("loki", 3100))
        }
        return {name: of[one].get(metric, 0) for name, (one, metric) in COUNTED.items()}

    def _page(self, service: str, port: int) -> str:
        # Not each is published to the host; Prometheus reaches all of them.
        url = f"http://{service}:{port}/metrics"
        return self.stack.execute("prometheus", "wget", "-q", "-O", "-", url)

    def settle_stores(self) -> None:
        """Wait until Tempo has written its blocks, and have Loki write all that it holds."""
        time.sleep(BLOCK_SECONDS)
        url = "http://loki:3100/flush"
        self.stack.execute("prometheus", "wget", "-q", "-O", "-", "--post-data", "", url)
        time.sleep(3)

    def disk(self) -> dict[str, int]:
        """Bytes of the messages, of whole blocks of traces, of chunks of logs, and of metrics."""
        mounts = [
            f"--volume={self.stack.project}_{one}-data:/{one}:ro" for one in VOLUMES
        ]  # fmt: skip
        channels = " ".join(f"/kafka/{one}-*" for one in CONSUMED)
        look = f"du -ck {channels} | tail -n 1; du -sk /tempo/blocks /loki/chunks /prometheus"
        printed = docker(
            "run", "--rm", "--network", "none", *mounts, ONLOOKER, "sh", "-c", look
        )  # fmt: skip
        sizes = [int(line.split()[0]) * 1024 for line in printed.splitlines()]
        return dict(zip(VOLUMES, sizes, strict=True))

    def series(self) -> dict[str, int]:
        """Series of one replica of each service, of what the Collector makes of spans, and all."""
        counts = {
            f"of {name}": f'count({{service_name="{name}",__name__!~"traces_.+|ALERTS.*"}})'
            for name in SERVICES
        }
        counts |= {
            "of spans": 'count({__name__=~"traces_.+"})',
            "of lag": 'count({__name__=~"messaging_consumer.*"})',
            "all": "prometheus_tsdb_head_series",
        }
        return {name: int(sum(self.prometheus.values(query))) for name, query in counts.items()}

    def limits(self) -> dict[str, float]:
        """What the stores and the Collector allow, as they are configured."""
        tempo = self._setting("TEMPO_PORT", "/status/config")["overrides"]["defaults"]["ingestion"]
        loki = self._setting("LOKI_PORT", "/config")["limits_config"]
        folder = self.stack.folder / "observability/otel-collector/config"
        graph = yaml.safe_load((folder / "collector.yaml").read_text())["connectors"]
        store = graph["service_graph"]["store"]
        tail = yaml.safe_load((folder / "sampling/tail.yaml").read_text())
        tail = tail["processors"]["tail_sampling"]
        return {
            "tempo_bytes": tempo["rate_limit_bytes"],
            "tempo_traces": tempo["max_traces_per_user"],
            "loki_bytes": loki["ingestion_rate_mb"] * 2**20,
            "graph_edges": store["max_items"],
            "graph_seconds": seconds_of(store["ttl"]),
            "tail_traces": tail["num_traces"],
            "tail_seconds": seconds_of(re.sub(r".*:-(.*)}", r"\1", tail["decision_wait"])),
        }

    def _setting(self, port: str, path: str) -> Any:
        with urllib.request.urlopen(self.stack.url(port) + path, timeout=30) as answer:
            *_, settings = yaml.safe_load_all(answer.read())  # Tempo puts its request before them
            return settings

    def versions(self) -> dict[str, str]:
        """Of the images that are measured."""
        images = {one: self.stack.image(one) for one in VOLUMES}
        dockerfile = self.stack.folder / "observability/otel-collector/Dockerfile"
        (collector,) = re.findall(r"^FROM (otel/\S+)", dockerfile.read_text(), re.MULTILINE)
        return {
            one: image.rpartition(":")[2].removeprefix("v") for one, image in images.items()
        } | {"collector": collector.rpartition(":")[2]}


def partition_of(key: str, partitions: int) -> int:
    """The partition that Kafka's clients choose for a key."""
    chosen: int = DefaultPartitioner()(key.encode(), [*range(partitions)], [])
    return chosen


def place(connection: http.client.HTTPConnection) -> None:
    """Place a good order.

    Raises:
        OSError: It was refused.
    """
    _, order = some_order({"good": 1})
    headers = {"Content-Type": "application/json"}
    connection.request("POST", "/orders", json.dumps(order), headers)
    answer = connection.getresponse()
    text = answer.read()
    if answer.status != 202:
        raise OSError(f"an order got the status {answer.status}: {text[:300]!r}")


def seconds_of(duration: str) -> float:
    """Read a duration in seconds, such as 45s."""
    return float(duration.removesuffix("s"))


def with_wait(source: str) -> str:
    """A service's module, its handler changed to wait first, as one that asks a database does.

    Raises:
        AssertionError: It has no handler such as the example's.
    """
    handlers = re.compile(
        r"^(async def (?:authorize|dispatch)\(.*\n    \"\"\"(?:.|\n)*?\"\"\"\n)", re.MULTILINE
    )
    wait = f'    await asyncio.sleep(float(os.environ["{WAIT}"]))\n'
    changed, found = handlers.subn(rf"\1{wait}", source)
    assert found == 1, "there is no handler to change"
    return changed.replace("import logging\n", "import asyncio\nimport logging\nimport os\n", 1)
