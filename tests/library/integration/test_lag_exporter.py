"""The lag exporter serves the lag of all groups, also while services or the broker are away."""

import asyncio
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from faststream_otel.kafka.embedded import embedded_kafka
from faststream_otel.messages.broker import Group, Lag, Replicas, Unreachable
from faststream_otel.messages.lag import LagMetrics
from faststream_otel.telemetry import ServiceRegistry
from opentelemetry.sdk.resources import Resource
from prometheus_client.parser import text_string_to_metric_families

from ..ports import free_port
from .conftest import Process, Start

SERVICE = """
from faststream_otel import Service
from ..settings import Settings
service = Service("{name}", Settings())
@service.subscriber("numbers")
async def count(number: int) -> None: ...
"""


class Samples(list[tuple[str, dict[str, str], float]]):
    """What a scrape answered."""

    def __init__(self, text: str) -> None:
        super().__init__(
            (sample.name, sample.labels, sample.value)
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        )

    def value(self, name: str, **labels: str) -> float | None:
        """The sum of the samples with these labels; None if there is none."""
        values = [
            value
            for sample, found, value in self
            if sample == name and found.items() >= labels.items()
        ]
        return sum(values) if values else None


class FakeBroker:
    """Answers as a test wishes."""

    system, url = "fake", "fake:1"

    def __init__(self) -> None:
        self.answer: Any = []
        self.copies: Any = []
        self.asked = 0

    async def lag(self, groups: Collection[Group]) -> list[Lag]:
        self.asked += 1
        return await self._tell(self.answer)

    async def replicas(self, channels: Collection[str]) -> list[Replicas]:
        assert set(channels) == {"numbers"}
        return await self._tell(self.copies)

    async def _tell(self, answer: Any) -> list[Any]:
        if answer is None:
            await asyncio.sleep(3600)
        if isinstance(answer, Exception):
            raise answer
        return list(answer)


@pytest.fixture
def broker() -> FakeBroker:
    return FakeBroker()


@pytest.fixture
def metrics(broker: FakeBroker) -> LagMetrics:
    return LagMetrics(broker, {Group("numbers", "g"): "s"}, seconds=0.2)  # type: ignore[arg-type]


async def scrape(metrics: LagMetrics) -> Samples:
    from prometheus_client import generate_latest

    registry = ServiceRegistry(Resource({"service.name": "lag"}))
    registry.register(metrics)
    await metrics.ask()
    return Samples(generate_latest(registry).decode())


async def test_each_state_and_position_has_a_sample(
    broker: FakeBroker, metrics: LagMetrics
) -> None:
    broker.answer = [
        Lag("numbers", "g", ready=3, in_flight=2, position=7, partition="1"),
        Lag("words", "h", ready=1, in_flight=None),
    ]
    found = await scrape(metrics)
    numbers = {
        "messaging_destination_template": "numbers",
        "messaging_consumer_group_name": "g",
        "messaging_destination_partition_id": "1",
        "service_name": "s",
    }
    assert found.value("messaging_consumer_lag", **numbers, state="ready") == 3
    assert found.value("messaging_consumer_lag", **numbers, state="in_flight") == 2
    assert found.value("messaging_consumer_position", **numbers) == 7
    words = {
        "messaging_destination_template": "words",
        "messaging_destination_partition_id": "",
        "service_name": "",  # of a group that no service of ours has
    }
    assert found.value("messaging_consumer_lag", **words, state="ready") == 1
    # Unknown is not zero.
    assert found.value("messaging_consumer_lag", **words, state="in_flight") is None
    assert found.value("messaging_consumer_position", **words) is None
    assert found.value("messaging_broker_up", messaging_system="fake") == 1


async def test_the_copies_of_a_channel_are_told_if_the_broker_tells_them(
    broker: FakeBroker, metrics: LagMetrics
) -> None:
    assert (await scrape(metrics)).value("messaging_channel_replicas") is None
    broker.copies = [
        Replicas("numbers", configured=3, in_sync=3, partition="0"),
        Replicas("numbers", configured=3, in_sync=2, partition="1"),
    ]
    found = await scrape(metrics)
    one = {
        "messaging_destination_template": "numbers",
        "messaging_destination_partition_id": "1",
        "service_name": "lag",
    }
    assert found.value("messaging_channel_replicas", **one) == 3
    assert found.value("messaging_channel_replicas_in_sync", **one) == 2
    broker.answer = Unreachable("it is gone")
    assert (await scrape(metrics)).value("messaging_channel_replicas_in_sync") is None


@pytest.mark.parametrize(
    "trouble", [Unreachable("it is gone"), ValueError("odd"), None], ids=["gone", "odd", "frozen"]
)
async def test_a_broker_that_does_not_answer_is_down_and_has_no_lag(
    broker: FakeBroker,
    metrics: LagMetrics,
    trouble: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    good = [Lag("numbers", "g", ready=3, in_flight=0)]
    broker.answer = good
    assert (await scrape(metrics)).value("messaging_consumer_lag") == 3
    broker.answer = trouble
    for _ in range(2):
        found = await scrape(metrics)
        assert found.value("messaging_broker_up") == 0
        assert found.value("messaging_consumer_lag") is None
    broker.answer = good
    found = await scrape(metrics)
    assert found.value("messaging_broker_up") == 1
    assert found.value("messaging_consumer_lag") == 3
    lost, back = [record.getMessage() for record in caplog.records]
    assert lost.startswith("No lag from the broker at fake:1 (BROKER_URL): ")
    assert back == "The broker at fake:1 answers again"


@pytest.mark.parametrize("trouble", [Unreachable("no permission"), None], ids=["refused", "slow"])
async def test_lag_is_told_without_the_copies(
    broker: FakeBroker, metrics: LagMetrics, trouble: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    broker.answer = [Lag("numbers", "g", ready=3, in_flight=0)]
    broker.copies = trouble
    for _ in range(2):
        found = await scrape(metrics)
        assert found.value("messaging_broker_up") == 1
        assert found.value("messaging_consumer_lag") == 3
        assert found.value("messaging_channel_replicas") is None
    broker.answer = Unreachable("it is gone")
    assert (await scrape(metrics)).value("messaging_broker_up") == 0
    no_copies, no_lag = [record.getMessage() for record in caplog.records]
    assert no_copies.startswith("No copies of channels from the broker at fake:1 (BROKER_URL): ")
    assert no_lag.endswith("it is gone")


async def test_two_scrapes_at_once_ask_once(broker: FakeBroker, metrics: LagMetrics) -> None:
    await asyncio.gather(metrics.ask(), metrics.ask())
    assert broker.asked == 1


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A package with two services that consume the same channel."""
    services = tmp_path / "tallying" / "services"
    services.mkdir(parents=True)
    (services / "__init__.py").touch()
    (services.parent / "settings.py").write_text(
        "from faststream_otel.kafka import KafkaSettings as Settings\n"
    )
    for name in ("counting", "adding"):
        (services / f"{name}.py").write_text(SERVICE.format(name=name))
    return tmp_path


async def get(process: Process, path: str = "/metrics") -> Samples:
    url = f"http://127.0.0.1:{process.port}{path}"
    answer = await asyncio.to_thread(lambda: urllib.request.urlopen(url, timeout=10).read())
    return Samples(answer.decode())


@asynccontextmanager
async def forwarding(port: int, to: str) -> AsyncIterator[None]:
    """Another address of a broker, for as long as the block runs."""
    host, _, theirs = to.partition(":")

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far, further = await asyncio.open_connection(host, int(theirs))

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            while data := await source.read(65536):
                sink.write(data)
            sink.close()

        await asyncio.gather(pump(reader, further), pump(far, writer))

    server = await asyncio.start_server(forward, "127.0.0.1", port)
    try:
        yield
    finally:
        server.close()


async def test_the_command_outlives_a_broker_that_goes_and_comes(
    project: Path, start: Start
) -> None:
    port = free_port()
    process = start(
        "-m", "faststream_otel.cli", "--app", "tallying", "lag-exporter",
        BROKER_URL=f"127.0.0.1:{port}", PYTHONPATH=str(project),
        OTEL_RESOURCE_ATTRIBUTES="deployment.environment.name=test",
    )  # fmt: skip
    await asyncio.to_thread(process.wait_ready)  # without its broker
    assert (await get(process)).value("messaging_broker_up") == 0

    with embedded_kafka(["numbers"]) as kafka:
        async with AIOKafkaProducer(bootstrap_servers=kafka) as producer:
            await producer.send_and_wait("numbers", b"1")
        for _ in range(2):
            async with forwarding(port, kafka):
                found = await get(process)
            assert found.value("messaging_broker_up", messaging_system="kafka") == 1
            for service in ("counting", "adding"):
                lag = found.value(
                    "messaging_consumer_lag",
                    messaging_consumer_group_name=f"{service}.numbers",
                    service_name=service,
                )
                assert lag == 1, service
            assert {
                labels["deployment_environment_name"]
                for name, labels, _ in found
                if name.startswith("messaging_")
            } == {"test"}
            assert found.value("target_info", service_name="lag") == 1
            found = await get(process)
            assert found.value("messaging_broker_up") == 0
            assert found.value("messaging_consumer_lag") is None
            assert found.value("messaging_consumer_position") is None

    with pytest.raises(urllib.error.HTTPError, match="404"):
        await get(process, "/other")
    assert await asyncio.to_thread(process.stop) == 0
    output = process.output.read_text()
    assert output.count("No lag from the broker at") == 3, output
    assert "Traceback" not in output
